-- ARGV: P new ms. Replace the namespace's secret; the former one is accepted for that
-- long. 'busy' if the one before is still accepted: that would be forgotten.
local key = P .. 'secret'
if call('EXISTS', key .. ':former') == 1 then return 'busy' end
local former = call('GET', key)
if former then call('SET', key .. ':former', former, 'PX', ARGV[3]) end
call('SET', key, ARGV[2])
return 'ok'
