-- ARGV: P uid. A process ends, or was seen to be gone: drop its lease and wake stream.
call('DEL', P .. 'ls:' .. ARGV[2], P .. 'wake:' .. ARGV[2])
return {'ok'}
