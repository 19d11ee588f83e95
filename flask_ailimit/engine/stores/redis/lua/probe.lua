-- Whether decisions can be made here: the server is neither full nor a replica, and lets us do what they do.

redis.call('TIME')
redis.call('SET', KEYS[1], 1, 'PX', 1000)
redis.call('GET', KEYS[1])
return redis.call('DEL', KEYS[1])
