-- ARGV: P eid uid inc role name mro, then pairs: stream "seq:inc:base"
-- The live owner repairs what a restarted or emptied server has lost.
local eid, uid, inc = ARGV[2], ARGV[3], ARGV[4]
local key = P .. 'mb:' .. eid
if is_gone(eid) then return {'terminated', why(eid)} end
local last = call('HMGET', key, 'inc', 'uid', 'closed')
local known = tonumber(last[1] or '0')
if known > tonumber(inc) then return {'fenced'} end
if last[3] == inc then return {'closed'} end
if known < tonumber(inc) then call('HSET', key, 'joins', inc) end
call('HSET', key, 'role', ARGV[5], 'name', ARGV[6], 'mro', ARGV[7],
     'inc', inc, 'uid', uid, 'hb', us(now_us()))
add_to_classes(eid, ARGV[7])
for i = 8, #ARGV, 2 do
  local mine = taken(ARGV[i + 1])
  local theirs = taken(call('HGET', P .. 'tk:' .. eid, ARGV[i]))
  if mine > theirs then call('HSET', P .. 'tk:' .. eid, ARGV[i], ARGV[i + 1]) end
end
return {'ok'}
