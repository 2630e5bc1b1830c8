-- ARGV: P, then eids. Per mailbox:
-- {state inc uid lease_ms_left hb_age_us role name mro waiting lease_value}
local out = {}
local now = now_us()
for i = 2, #ARGV do
  local eid = ARGV[i]
  local r = call('HMGET', P .. 'mb:' .. eid, 'inc', 'uid', 'hb', 'role', 'name', 'mro')
  local state = 'open'
  if is_gone(eid) then state = 'terminated' elseif not r[4] then state = 'missing' end
  local left, lease = -2, ''
  if r[2] and r[2] ~= '' then
    left = call('PTTL', P .. 'ls:' .. r[2])
    lease = call('GET', P .. 'ls:' .. r[2]) or ''
  end
  local waiting = call('XLEN', P .. 'r:' .. eid) + call('XLEN', P .. 'q:' .. eid)
  local age = -1
  if r[3] then age = now - tonumber(r[3]) end
  out[#out + 1] = {state, r[1] or '0', r[2] or '', left, us(age), r[4] or '',
                   r[5] or '', r[6] or '', waiting, lease}
end
return out
