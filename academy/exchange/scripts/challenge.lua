-- ARGV: P uid milliseconds. Who lives renews its lease within that time.
local key = P .. 'ls:' .. ARGV[2]
if call('PTTL', key) > tonumber(ARGV[3]) then call('PEXPIRE', key, ARGV[3]) end
return {'ok'}
