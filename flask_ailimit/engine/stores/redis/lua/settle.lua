-- Twin of decide.py's settle. The marker remembers for a while that it was done: done again, it does nothing.
-- With the marker of a decision behind it, it undoes the decision, which nobody knows to have been made: if it wasn't,
-- the marker that is now there keeps it from being made later.

local ALREADY = 0

if not redis.call('SET', marker, 1, 'NX', 'PX', REMEMBERED_MS) then return ALREADY end

local decision, decided_at_us = KEYS[subjects + 2], nil
if decision then
  if redis.call('SET', decision, exact_text(now_us), 'NX', 'PX', REMEMBERED_MS) then return ALREADY end
  decided_at_us = tonumber(redis.call('GET', decision))
end

local unknown, changed = 0, {}
for _ = 1, count do
  local charge = next_charge()
  local taken_at_us, actual, held = next_number(), exact(next_number()), next_number()
  local record = record_of(charge.key)
  local state = state_of(record, charge.bucket)
  if not state[1] or charge.algorithm.expires(state, charge.quota) <= now_us then unknown = unknown + 1 end
  local settled = charge.algorithm.settle(state, now_us, charge.quota, decided_at_us or taken_at_us, charge.cost, actual, held)
  replace(record, charge.bucket, charge.algorithm, charge.quota, settled)
  changed[charge.key] = true
end
for key in pairs(changed) do write(key, records[key], now_us) end
return unknown
