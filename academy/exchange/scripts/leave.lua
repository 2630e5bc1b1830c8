-- ARGV: P uid. A process ends: drop its lease and its wake stream.
call('DEL', P .. 'ls:' .. ARGV[2], P .. 'wake:' .. ARGV[2])
return {'ok'}
