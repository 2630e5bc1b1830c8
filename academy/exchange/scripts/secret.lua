-- ARGV: P candidate. The namespace's secret, made by whoever comes first.
-- {current former}; the former one is empty, or still accepted.
local key = P .. 'secret'
call('SET', key, ARGV[2], 'NX')
return {call('GET', key), call('GET', key .. ':former') or ''}
