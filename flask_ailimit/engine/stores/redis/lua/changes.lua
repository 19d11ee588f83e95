-- The changes of plans, in order. ARGV: the least number, and how many at most.

return redis.call('ZRANGE', KEYS[1], ARGV[1], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2])
