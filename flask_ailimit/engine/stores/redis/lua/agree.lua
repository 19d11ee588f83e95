-- What the machines' secret leaves behind, as the first of them said it. ARGV: this machine's, and how many milliseconds it
-- is kept from now on. Whatever else is there is none.

local kept = redis.pcall('GET', KEYS[1])
if type(kept) == 'table' and not kept.err:find('WRONGTYPE', 1, true) then redis.call('GET', KEYS[1]) end
if type(kept) ~= 'string' or #kept ~= #ARGV[1] or kept:find('%X') then kept = ARGV[1] end
if kept == ARGV[1] then redis.call('SET', KEYS[1], kept, 'PX', ARGV[2]) end
return kept
