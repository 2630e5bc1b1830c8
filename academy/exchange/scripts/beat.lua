-- ARGV: P eid
if call('EXISTS', P .. 'mb:' .. ARGV[2]) == 1 then
  call('HSET', P .. 'mb:' .. ARGV[2], 'hb', us(now_us()))
end
return {'ok'}
