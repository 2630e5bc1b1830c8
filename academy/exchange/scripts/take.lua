-- ARGV: P eid inc count after_r after_q
-- Hand messages to the current incarnation, with the time in ms, by which their age can
-- be told. They are recorded as taken before anybody executes them, and removed when the next take confirms that they have arrived, so
-- that a lost reply loses nothing: the same take gives the same messages again.
local eid, inc, count = ARGV[2], ARGV[3], tonumber(ARGV[4])
local refused = check_owner(eid, inc)
if refused then return refused end
local back, queue = P .. 'r:' .. eid, P .. 'q:' .. eid

local function confirm(key, after)
  if after == '0-0' then return end
  local ms, n = string.match(after, '^(%d+)-(%d+)$')
  call('XTRIM', key, 'MINID', ms .. '-' .. us(tonumber(n) + 1))
end
confirm(back, ARGV[5])
confirm(queue, ARGV[6])
confirm_bytes(eid, ARGV[6])

local from_back = call('XRANGE', back, '-', '+', 'COUNT', count)
local from_queue = {}
if #from_back < count then
  from_queue = call('XRANGE', queue, '-', '+', 'COUNT', count - #from_back)
end
local tk = P .. 'tk:' .. eid
local bytes = 0
for _, list in ipairs({from_back, from_queue}) do
  for _, entry in ipairs(list) do
    local f = entry[2]
    local found = {}
    for i = 1, #f, 2 do found[f[i]] = f[i + 1] end
    local stream, seq = found.s, found.q
    if list == from_queue and string.sub(found.k or '', 1, 1) == 'q' then
      bytes = bytes + size_of(found.m or '', found.b or '')
    end
    if stream and seq and string.match(seq, '^%d+$') then
      local had, by, base = taken(call('HGET', tk, stream))
      if by ~= inc then base = had end
      if tonumber(seq) > had then
        call('HSET', tk, stream, seq .. ':' .. inc .. ':' .. us(base))
      end
    end
  end
end
if #from_queue > 0 then
  call('HSET', P .. 'mb:' .. eid, 'qo', from_queue[#from_queue][1] .. ' ' .. us(bytes))
end
local time = call('TIME')
return {'ok', us(time[1] * 1000 + math.floor(time[2] / 1000)), from_back, from_queue}
