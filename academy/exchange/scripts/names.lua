-- ARGV: P, then eids. Per mailbox its name; false if it is not registered (any more).
local out = {}
for i = 2, #ARGV do out[#out + 1] = call('HGET', P .. 'mb:' .. ARGV[i], 'name') end
return out
