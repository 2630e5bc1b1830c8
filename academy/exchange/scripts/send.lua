-- ARGV: P dest src src_inc stream seq cap uid kind tag head rest mac stamp byte_cap ahead
-- Append if the mailbox is open; a second try of the same message changes nothing.
-- What is refused for lack of room is told whether to wait for some: its owner lives.
local dest, stream, seq = ARGV[2], ARGV[5], tonumber(ARGV[6])
-- A process may also send in its own name (no src): as long as its lease lives.
local refused
if ARGV[3] ~= '' then
  refused = check_owner(ARGV[3], ARGV[4])
elseif not alive(ARGV[8]) then
  refused = {'missing'}
end
if refused then return {'sender', refused[1], refused[2] or ''} end
if is_gone(dest) then return {'terminated', why(dest)} end
local key = P .. 'mb:' .. dest
if call('EXISTS', key) == 0 then return {'missing'} end
local queue, appended = P .. 'q:' .. dest, P .. 'ap:' .. dest
local owner = call('HMGET', key, 'uid', 'inc', 'since', 'closed', 'qb')
local uid, stamp = owner[1], ARGV[14]
-- The stamp is the incarnation that may have the message already. One that has closed
-- cleanly has left its marks: what it took or gave back is there, the rest is not. Of
-- one that is gone otherwise nobody can tell.
local which = tonumber(stamp)
local since, closed = tonumber(owner[3] or '0'), tonumber(owner[4] or '0')
if which > 0 and since <= which and which <= closed then
  local had = taken(call('HGET', P .. 'tk:' .. dest, stream))
  if seq <= had then return {'ok', 0} end
  stamp = '0'
elseif which > 0 and stamp ~= owner[2] then
  return {'lost'}
end
local refusals, this = P .. 'fu:' .. dest, stream .. ' ' .. ARGV[6]
local waiting, bytes = filled(dest, owner[5])
if seq > tonumber(call('HGET', appended, stream) or '0') then
  local cap = tonumber(ARGV[7])
  if cap > 0 then
    local after = bytes + size_of(ARGV[11], ARGV[12])
    local full = waiting >= cap or (bytes > 0 and after > tonumber(ARGV[15]))
    -- What came on the heels of one that was refused must not overtake it.
    if full or call('SISMEMBER', refusals, stream .. ' ' .. ARGV[16]) == 1 then
      call('SADD', refusals, this)
      call('PEXPIRE', refusals, 120000)
      return {'full', waiting, bytes, alive(uid) and 1 or 0}
    end
    call('SREM', refusals, this)
    call('HSET', key, 'qb', us(after))
  end
  call('XADD', queue, '*', 's', stream, 'q', ARGV[6], 'k', ARGV[9], 'g', ARGV[10],
       'm', ARGV[11], 'b', ARGV[12], 'h', ARGV[13], 'x', stamp)
  call('HSET', appended, stream, ARGV[6])
  -- Streams of senders that are gone would add up for ever.
  if call('HLEN', appended) > 4096 and call('XLEN', queue) <= 1 then
    for _, s in ipairs(call('HKEYS', appended)) do
      local from, inc = string.match(s, '^([A-Z2-7]+):(%d+):')
      if from and call('HGET', P .. 'mb:' .. from, 'inc') ~= inc then
        call('HDEL', appended, s)
        call('HDEL', P .. 'tk:' .. dest, s)
      end
    end
  end
elseif call('SISMEMBER', refusals, this) == 1 then
  -- A second try of what was refused; only what came behind it found room.
  return {'full', waiting, bytes, 0}
end
watch(dest, ARGV[8])
if alive(uid) then tell(uid, 'm', dest, '', '') end
return {'ok', tonumber(stamp)}
