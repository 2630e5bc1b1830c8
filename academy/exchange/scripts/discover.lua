-- ARGV: P class subclasses. Pairs of agent and name.
local out = {}
for _, eid in ipairs(call('SMEMBERS', P .. 'class:' .. ARGV[2])) do
  local r = call('HMGET', P .. 'mb:' .. eid, 'name', 'mro')
  local first = string.match(r[2] or '', '^[^\n]*')
  if r[2] and (ARGV[3] == '1' or first == ARGV[2]) then
    out[#out + 1] = {eid, r[1] or ''}
  end
end
return out
