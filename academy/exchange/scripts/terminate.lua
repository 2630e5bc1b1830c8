-- ARGV: P eid reason
-- Close a mailbox for good. Returns what waited, without its rest, to be answered.
local eid, reason = ARGV[2], ARGV[3]
if is_gone(eid) then return {'ok', {}} end
local key = P .. 'mb:' .. eid
local record = call('HMGET', key, 'uid', 'mro', 'inc')
if call('EXISTS', key) == 0 then return {'missing'} end
local waiting = {}
for _, k in ipairs({P .. 'r:' .. eid, P .. 'q:' .. eid}) do
  for _, entry in ipairs(call('XRANGE', k, '-', '+')) do
    local f = {}
    for i = 1, #entry[2], 2 do f[entry[2][i]] = entry[2][i + 1] end
    local had = taken(call('HGET', P .. 'tk:' .. eid, f['s'] or ''))
    local fresh = tonumber(f['q'] or '0') and tonumber(f['q'] or '0') > had
    local executed = (fresh and (f['x'] or '0') == '0') and 'no' or 'maybe'
    local kept = {}
    for _, name in ipairs({'s', 'q', 'k', 'g', 'm'}) do
      if f[name] then kept[#kept + 1] = name; kept[#kept + 1] = f[name] end
    end
    if f['m'] then waiting[#waiting + 1] = {kept, executed} end
  end
end
local now = now_us()
call('ZADD', P .. 'gone', us(now), eid)
if reason ~= '' then call('HSET', P .. 'why', eid, reason) end
local old = us(now - 86400000000)
for _, e in ipairs(call('ZRANGE', P .. 'gone', '-inf', '(' .. old, 'BYSCORE', 'LIMIT', 0, 100)) do
  call('HDEL', P .. 'why', e)
  call('ZREM', P .. 'gone', e)
end
for _, k in ipairs(class_keys(record[2] or '')) do call('SREM', k, eid) end
if alive(record[1]) then tell(record[1], 'g', eid, record[3] or '0', reason) end
tell_watchers('g', eid, record[3] or '0', reason)
for _, k in ipairs({'mb:', 'q:', 'r:', 'ap:', 'tk:', 'fu:', 'watch:'}) do call('DEL', P .. k .. eid) end
return {'ok', waiting}
