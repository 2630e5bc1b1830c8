-- ARGV: P dest, then streams. What became of the messages of these streams?
local dest = ARGV[2]
if is_gone(dest) then return {'terminated', '0', 0, 0, '0', '0'} end
local r = call('HMGET', P .. 'mb:' .. dest, 'inc', 'uid', 'since', 'closed')
local state = 'open'
if call('EXISTS', P .. 'mb:' .. dest) == 0 then state = 'missing' end
local waiting = call('XLEN', P .. 'r:' .. dest) + call('XLEN', P .. 'q:' .. dest)
local out = {state, r[1] or '0', alive(r[2]) and 1 or 0, waiting,
             r[3] or '0', r[4] or '0'}
for i = 3, #ARGV do
  local seq, inc, base = taken(call('HGET', P .. 'tk:' .. dest, ARGV[i]))
  out[#out + 1] = {tonumber(call('HGET', P .. 'ap:' .. dest, ARGV[i]) or '0'),
                   seq, inc, base}
end
return out
