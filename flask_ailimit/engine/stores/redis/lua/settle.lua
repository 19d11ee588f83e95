-- Twin of decide.py's settle. The marker remembers for a while that it was done: done again, it does nothing.
-- With the marker of a decision behind it, it undoes the decision, which nobody knows to have been made: if it wasn't,
-- the marker that is now there keeps it from being made later.

local ALREADY = 0
local TIME_BYTES = 8
local NOT_TAKEN = '0'

local decision, decided_at, decided_at_us = KEYS[subjects + 2], '', nil
if decision then
  if redis.call('GET', marker) then return ALREADY end
  decided_at = redis.call('GET', decision)
  if not decided_at then
    redis.call('SET', decision, encode('<i8', now_us), 'PX', REMEMBERED_MS)
    redis.call('SET', marker, '1', 'PX', REMEMBERED_MS)
    return ALREADY
  end
  decided_at_us = decode('<i8', decided_at)
end

local unknown, at = 0, first
for i = 1, count do
  local record, number, algorithm, cost, taken_at_us, actual, held
  record, number, algorithm, cost, at = charge_at(at)
  taken_at_us, actual, held, at = decode('<i8i8i8', request, at)
  if not (actual >= 0 and actual <= MAX_EXACT) then error('a cost is no whole number from 0 to 2^53 - 1') end
  if decided_at:sub(TIME_BYTES + i, TIME_BYTES + i) ~= NOT_TAKEN then
    local state = state_of(record, number, algorithm, true)
    if not state[1] or algorithm.expires(state, quota) <= now_us then unknown = unknown + 1 end
    state = algorithm.settle(state, now_us, quota, decided_at_us or taken_at_us, cost, actual, held)
    if state[1] then
      replace(record, number, state, algorithm.expires(state, quota))
    else
      forget(record, number)
    end
  end
end
if marker and not redis.call('SET', marker, '1', 'PX', REMEMBERED_MS, 'NX') then return ALREADY end
for place = 1, subjects do write(KEYS[place], records[place], now_us) end
return replaced and {unknown, unpack(replaced)} or unknown
