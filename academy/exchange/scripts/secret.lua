-- ARGV: P candidate. The namespace's secret, made by whoever comes first.
local key = P .. 'secret'
call('SET', key, ARGV[2], 'NX')
return call('GET', key)
