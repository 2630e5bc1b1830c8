-- ARGV: P uid milliseconds value
local key = P .. 'ls:' .. ARGV[2]
local had = call('EXISTS', key)
call('SET', key, ARGV[4], 'PX', ARGV[3])
call('PEXPIRE', P .. 'wake:' .. ARGV[2], 60000)
return had
