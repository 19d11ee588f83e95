-- Who shares this store: a sorted set of machines by the second they were last seen. ARGV: the machine, and the seconds
-- after which one that was not seen is gone.

local key, now, patience = KEYS[1], tonumber(redis.call('TIME')[1]), ARGV[2]
redis.call('EXPIRE', key, patience) -- Who may not do this writes nothing: it would never end.
local seen = redis.pcall('ZRANGE', key, 0, -1, 'WITHSCORES')
if seen.err then
  if not seen.err:find('WRONGTYPE', 1, true) then redis.call('ZRANGE', key, 0, -1) end
  redis.call('DEL', key)
  seen = {}
end
for i = 1, #seen, 2 do
  -- Seen in the future: the clock went back. From now on it has as long as any other.
  if tonumber(seen[i + 1]) > now then redis.call('ZADD', key, now, seen[i]) end
end
redis.call('ZADD', key, now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. now - patience)
redis.call('EXPIRE', key, patience)
return redis.call('ZRANGE', key, 0, -1)
