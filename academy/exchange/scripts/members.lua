-- ARGV: P class exact. The agents of a class; with exact = 1, not of derived ones.
local kind = 'class:'
if ARGV[3] == '1' then kind = 'exact:' end
return call('SMEMBERS', P .. kind .. ARGV[2])
