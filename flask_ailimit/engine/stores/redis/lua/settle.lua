-- Twin of decide.py's settle. The marker remembers for a while that it was done: done again, it does nothing.
-- With the marker of a decision behind it, it undoes the decision, which nobody knows to have been made: if it wasn't,
-- the marker that is now there keeps it from being made later.

local ALREADY = 0

if marker and redis.call('GET', marker) then return ALREADY end

local decision, decided_at_us = KEYS[subjects + 2], nil
if decision then
  local decided_at = redis.call('GET', decision)
  if not decided_at then
    redis.call('SET', decision, struct.pack('<i8', now_us), 'PX', REMEMBERED_MS)
    redis.call('SET', marker, 1, 'PX', REMEMBERED_MS)
    return ALREADY
  end
  decided_at_us = struct.unpack('<i8', decided_at)
end

local unknown, at = 0, first
for _ = 1, count do
  local record, _, cost, bucket, algorithm, quota, rest = charge_at(at)
  local taken_at_us, actual, held
  taken_at_us, actual, held, at = struct.unpack('<i8i8i8', request, rest)
  local state = changed_state(record, bucket)
  if not state[1] or algorithm.expires(state, quota) <= now_us then unknown = unknown + 1 end
  taken_at_us = decided_at_us or taken_at_us
  replace(record, bucket, algorithm, quota, algorithm.settle(state, now_us, quota, taken_at_us, cost, exact(actual), held))
end
if marker then redis.call('SET', marker, 1, 'PX', REMEMBERED_MS) end
for _, record in pairs(records) do write(record, now_us) end
return unknown
