-- Twin of decide.py's settle. The marker remembers for a while that it was done: done again, it does nothing.
-- With the marker of a decision behind it, it undoes the decision, which nobody knows to have been made: if it wasn't,
-- the marker that is now there keeps it from being made later.

local ALREADY = 0
local TIME_BYTES = 8
local NOT_TAKEN = '0'
local MOST_COUNTS = 512

sees_changes = true

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

-- Has a notice written that somebody is told: this count has passed its soft percent. Answers whether there was none, and
-- room for it. One that ends later than a period from now is none: the clock went back.
local function noticed(record, number, algorithm, reset_us)
  local notice, lives, period_us = number_of(record, notice_of(record.buckets[number])), 0, quota.period * MICROSECONDS
  if quota.tells_windows then period_us = math.max(period_us, reset_us) end
  for each = 1, record.size do
    local change = record.changes[each]
    local ends = change and (change == '' and 0 or decode('<I4', change, 9)) or record.ends[each]
    if each == notice and (ends - 1) * MICROSECONDS >= now_us + period_us then ends = 0 end
    if ends * MICROSECONDS > now_us then
      lives = lives + 1
      if each == notice then return false end
    end
  end
  if lives >= MOST_COUNTS then return false end
  local window_us = algorithm.follows_clock and period_us - now_us % period_us or math.min(reset_us, period_us)
  replace(record, notice, {1}, now_us + window_us)
  return true
end

-- The counts that have passed: of each the place of its settlement, what is left, and the wait until all is. And those of
-- settlements that corrected nothing and found theirs below: with a wait that never is.
local passed
local unknown, at = 0, first
for i = 1, count do
  local record, number, algorithm, cost, soft_left, taken_at_us, actual, held
  record, number, algorithm, cost, at = charge_at(at)
  soft_left, taken_at_us, actual, held, at = decode('<i8i8i8i8', request, at)
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
    if soft_left >= 0 and actual > 0 then
      local _, _, left, reset_us = algorithm.admit(state, now_us, quota, 0, -1)
      if algorithm.spending then reset_us = select(5, algorithm.spending(state, now_us, quota)) - now_us end
      local is_below = left > soft_left
      if is_below and actual == cost or not is_below and noticed(record, number, algorithm, reset_us) then
        passed = passed or {}
        local told = #passed
        passed[told + 1], passed[told + 2], passed[told + 3] = i - 1, is_below and 0 or left, is_below and NEVER or reset_us
      end
    end
  end
end
if quota.is_beyond then return -now_us end
if marker and not redis.call('SET', marker, '1', 'PX', REMEMBERED_MS, 'NX') then return ALREADY end
for place = 1, subjects do write(KEYS[place], records[place], now_us) end
local answer = passed and encode('<I2' .. ('I2i8i8'):rep(#passed / 3), unknown, unpack(passed)) or unknown
return replaced and {answer, unpack(replaced)} or answer
