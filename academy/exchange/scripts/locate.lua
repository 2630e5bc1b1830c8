-- ARGV: P eid uid. Where is the owner of a mailbox? Who asks is told when it moves.
-- {inc lease_value uid}; the lease is empty if no live process has the mailbox.
local eid = ARGV[2]
local r = call('HMGET', P .. 'mb:' .. eid, 'inc', 'uid')
if is_gone(eid) or not r[1] then return {'0', '', ''} end
watch(eid, ARGV[3])
local lease = ''
if r[2] and r[2] ~= '' then lease = call('GET', P .. 'ls:' .. r[2]) or '' end
return {r[1], lease, r[2] or ''}
