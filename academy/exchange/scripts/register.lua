-- ARGV: P, then per mailbox: eid role name mro (class names, one per line)
for i = 2, #ARGV, 4 do
  local eid, role, name, mro = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if not is_gone(eid) then
    call('HSET', P .. 'mb:' .. eid, 'role', role, 'name', name, 'mro', mro)
    add_to_classes(eid, mro)
  end
end
return {'ok'}
