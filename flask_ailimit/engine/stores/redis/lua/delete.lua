-- Forgets a subject.

return redis.call('DEL', KEYS[1])
