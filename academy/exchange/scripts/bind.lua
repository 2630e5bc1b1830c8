-- ARGV: P eid uid
-- A new incarnation owns the mailbox: larger than any before, also after a lost counter.
local eid, uid = ARGV[2], ARGV[3]
local key = P .. 'mb:' .. eid
if is_gone(eid) then return {'terminated', why(eid)} end
if call('EXISTS', key) == 0 then return {'missing'} end
local last = call('HMGET', key, 'inc', 'uid', 'mro', 'closed', 'since')
local now = now_us()
local inc = us(math.max(tonumber(last[1] or '0') + 1, now))
local joins = inc
if last[1] and last[1] == last[4] then joins = last[5] or last[4] end
call('HSET', key, 'inc', inc, 'uid', uid, 'joins', joins, 'hb', us(now))
if alive(last[2]) and last[2] ~= uid then tell(last[2], 'f', eid, inc, '') end
tell_watchers('b', eid, inc, '')
local waiting = call('XLEN', P .. 'r:' .. eid) + call('XLEN', P .. 'q:' .. eid)
return {'ok', inc, call('HGETALL', P .. 'tk:' .. eid), last[3] or '',
        last[5] or '0', last[4] or '0', waiting}
