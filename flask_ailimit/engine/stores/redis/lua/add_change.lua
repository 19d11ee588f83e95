-- Appends a change of plans. ARGV: the number of the last one that its author knows, the text, and the numbers of those to
-- erase. Answers 0, and changes nothing, if there is a later one.

local key = KEYS[1]
local newest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
local last = tonumber(newest[2] or 0)
if last ~= tonumber(ARGV[1]) then return 0 end
for i = 3, #ARGV do redis.call('ZREMRANGEBYSCORE', key, ARGV[i], ARGV[i]) end
redis.call('ZADD', key, last + 1, ('%d '):format(last + 1) .. ARGV[2])
return 1
