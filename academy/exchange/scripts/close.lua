-- ARGV: P eid inc after_r after_q n, then n pairs: stream "seq:inc:base" (what the
-- consumer really took), then per message given back: stream seq kind tag head rest mac stamp
local eid, inc, n = ARGV[2], ARGV[3], tonumber(ARGV[6])
local key = P .. 'mb:' .. eid
if call('HGET', key, 'closed') == inc then return {'ok'} end
local refused = check_owner(eid, inc)
if refused then return refused end
local back, queue = P .. 'r:' .. eid, P .. 'q:' .. eid
local tk, appended = P .. 'tk:' .. eid, P .. 'ap:' .. eid

local function untaken(k, after)
  local start = '-'
  if after ~= '0-0' then start = '(' .. after end
  return call('XRANGE', k, start, '+')
end
local rest_back = untaken(back, ARGV[4])
call('DEL', back)
if ARGV[5] ~= '0-0' then
  local ms, i = string.match(ARGV[5], '^(%d+)-(%d+)$')
  call('XTRIM', queue, 'MINID', ms .. '-' .. us(tonumber(i) + 1))
  confirm_bytes(eid, ARGV[5])
end
for i = 7, 6 + 2 * n, 2 do call('HSET', tk, ARGV[i], ARGV[i + 1]) end
for i = 7 + 2 * n, #ARGV, 8 do
  call('XADD', back, '*', 's', ARGV[i], 'q', ARGV[i + 1], 'k', ARGV[i + 2],
       'g', ARGV[i + 3], 'm', ARGV[i + 4], 'b', ARGV[i + 5], 'h', ARGV[i + 6],
       'x', ARGV[i + 7])
  -- It may have found the queue full, and have come directly then.
  call('SREM', P .. 'fu:' .. eid, ARGV[i] .. ' ' .. ARGV[i + 1])
  if tonumber(ARGV[i + 1]) > tonumber(call('HGET', appended, ARGV[i]) or '0') then
    call('HSET', appended, ARGV[i], ARGV[i + 1])
  end
end
for _, entry in ipairs(rest_back) do call('XADD', back, '*', unpack(entry[2])) end
local since = call('HGET', key, 'joins') or inc
call('HSET', key, 'uid', '', 'closed', inc, 'since', since, 'hb', us(now_us()))
tell_watchers('c', eid, inc, '')
return {'ok'}
