-- Shared by all scripts: names of keys, and what they say to each other.
-- Layout, below the prefix P of the namespace:
--   mb:<eid>   hash: role name mro inc uid hb   one mailbox; uid = owning process
--              closed = the incarnation that was closed cleanly last; since = the first of
--              the unbroken run of clean closes that ended with it; joins = what since
--              becomes if the current incarnation closes cleanly, too. So of every
--              incarnation from since to closed it is known what it took: see tk.
--              qb = bytes of the requests in q; qo = "id bytes": of those that the last
--              take has handed out, up to that entry, which the next one confirms
--   q:<eid>    stream: waiting messages                r:<eid> stream: given back, go first
--   ap:<eid>   hash: stream -> highest seq appended
--   fu:<eid>   set: messages that found the queue full last, for two minutes
--   tk:<eid>   hash: stream -> "seq:inc:base"          highest seq taken, by which
--              incarnation, and the highest that former incarnations took
--   ls:<uid>   lease of a process                      wake:<uid> stream: what it must hear
--   class:<c>  set of agents, also of derived classes   exact:<c> without those
--   watch:<eid> set of processes
--   gone       zset of terminated mailboxes            why hash of the reasons
local P = ARGV[1]
local call = redis.call

local function now_us()
  local t = call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function us(n) return string.format('%.0f', n) end

local function alive(uid)
  return uid and uid ~= '' and call('EXISTS', P .. 'ls:' .. uid) == 1
end

local function tell(uid, kind, eid, inc, text)
  local key = P .. 'wake:' .. uid
  call('XADD', key, 'MAXLEN', '~', '10000', '*', 't', kind, 'e', eid, 'i', inc, 'r', text)
  call('PEXPIRE', key, 60000)
end

-- Tell those with an interest in a mailbox, and forget those that are gone.
local function tell_watchers(kind, eid, inc, text)
  local key = P .. 'watch:' .. eid
  for _, uid in ipairs(call('SMEMBERS', key)) do
    if alive(uid) then tell(uid, kind, eid, inc, text) else call('SREM', key, uid) end
  end
end

-- A process wants news of a mailbox. Whenever twice as many do, those that are gone are
-- dropped, so that a mailbox that never moves does not keep all who ever asked for it.
local function watch(eid, uid)
  local key = P .. 'watch:' .. eid
  if call('SADD', key, uid) == 0 then return end
  local count, limit = call('SCARD', key), 64
  while limit < count do limit = limit * 2 end
  if count < limit then return end
  for _, other in ipairs(call('SMEMBERS', key)) do
    if not alive(other) then call('SREM', key, other) end
  end
end

local function taken(value)
  local seq, inc, base = string.match(value or '', '^(%d+):(%d+):(%d+)$')
  if not seq then return 0, '0', 0 end
  return tonumber(seq), inc, tonumber(base)
end

-- What a request in a queue counts for: its content, and what the server keeps beside it.
local function size_of(head, rest) return #head + #rest + 256 end

-- How many messages wait in a queue, and their bytes, given what is on record of these.
local function filled(eid, bytes)
  local waiting = call('XLEN', P .. 'q:' .. eid)
  return waiting, waiting > 0 and tonumber(bytes or '0') or 0
end

-- Count the requests off that were handed out by the last take, if they have arrived.
local function confirm_bytes(eid, after)
  local key = P .. 'mb:' .. eid
  local r = call('HMGET', key, 'qb', 'qo')
  local last, bytes = string.match(r[2] or '', '^(%S+) (%d+)$')
  if last and last == after then
    call('HSET', key, 'qb', us(math.max(0, tonumber(r[1] or '0') - bytes)), 'qo', '')
  end
end

local function is_gone(eid) return call('ZSCORE', P .. 'gone', eid) end

local function why(eid) return call('HGET', P .. 'why', eid) or '' end

-- The owner's incarnation if `inc` is the current one; else what is wrong.
local function check_owner(eid, inc)
  local current = call('HGET', P .. 'mb:' .. eid, 'inc')
  if current == inc then return nil end
  if is_gone(eid) then return {'terminated', why(eid)} end
  if not current then return {'missing'} end
  return {'fenced'}
end

-- The sets of agents by their classes; mro = class names, nearest first, one per line.
local function class_keys(mro)
  local keys = {}
  for class in string.gmatch(mro, '[^\n]+') do
    if #keys == 0 then keys[1] = P .. 'exact:' .. class end
    keys[#keys + 1] = P .. 'class:' .. class
  end
  return keys
end

local function add_to_classes(eid, mro)
  for _, key in ipairs(class_keys(mro)) do call('SADD', key, eid) end
end
