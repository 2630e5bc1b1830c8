-- ARGV: P dest. Is it worth while to wait for room in a queue, and what is in it?
local owner = call('HMGET', P .. 'mb:' .. ARGV[2], 'uid', 'qb')
local waiting, bytes = filled(ARGV[2], owner[2])
return {alive(owner[1]) and 1 or 0, waiting, bytes}
