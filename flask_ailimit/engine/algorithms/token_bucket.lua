-- Twin of token_bucket.py: the same operations in the same order.

local MAX_TROUGHS = 4
local LIFETIME_US = 4503599627370496

-- The microsecond at which what is owed at a tick has leaked; of more than a lifetime, only that it is.
local function free_at(debt, at, quota)
  local leak, tick_us = quota.leak, quota.tick_us
  local rest = debt % leak
  local ticks = rest == 0 and debt / leak or (debt - rest) / leak + 1
  local most = (LIFETIME_US - LIFETIME_US % tick_us) / tick_us
  return (at + (ticks < most and ticks or most)) * tick_us
end

local function most(quota)
  return math.min(quota.ceiling * quota.cost_scale, MAX_EXACT)
end

local function debt_at(state, now, quota)
  local debt, at, leak = state[1], state[2], quota.leak
  if not debt then return 0 end
  if debt > quota.burst * quota.cost_scale then debt = math.min(debt, most(quota)) end
  if now <= at then return debt end
  -- In this order no step leaves the integers that are counted exactly.
  local rest = debt % leak
  local ticks = rest == 0 and debt / leak or (debt - rest) / leak + 1
  if now - at >= ticks then return 0 end
  return debt - (now - at) * leak
end

-- Adds a trough to those of a state, from its third number on: drops each that the new one is at least as low as, and of
-- those of one tick all but the lowest. Answers how many numbers the state has then.
local function with_trough(state, count, t, low)
  while count > 2 and state[count] >= low do
    state[count - 1], state[count] = nil, nil
    count = count - 2
  end
  if count > 2 and state[count - 1] == t then return count end
  state[count + 1], state[count + 2] = t, low
  return count + 2
end

-- The state at tick now, with room for its debt, and how many numbers it has.
local function carried(state, now)
  local count = #state
  if count == 0 then return {0, now, nil, nil}, 2 end
  if now < state[2] then return {0, now, now, 0}, 4 end
  return {0, now, state[3], state[4], state[5], state[6], state[7], state[8], state[9], state[10]}, count
end

local function charged(state, now, debt, owed)
  local after, count = carried(state, now)
  after[1] = owed
  count = with_trough(after, count, now, debt)
  if count <= 2 + 2 * MAX_TROUGHS then return after end
  local least = 4
  for i = 6, count - 2, 2 do
    if after[i + 2] - after[i] < after[least + 2] - after[least] then least = i end
  end
  -- One trough in place of two: the later time, the lower debt.
  after[least - 1] = after[least + 1]
  table.remove(after, least + 2)
  table.remove(after, least + 1)
  return after
end

local function admit(state, now_us, quota, cost)
  local tick_us, burst, scale = quota.tick_us, quota.burst, quota.cost_scale
  local now = (now_us - now_us % tick_us) / tick_us
  local debt = debt_at(state, now, quota)
  local allowed, wait_us, added = true, 0, cost * scale
  local lack = added - (burst * scale - debt)
  if cost > burst then
    allowed, wait_us = false, NEVER
  elseif lack > 0 then
    allowed, wait_us = false, free_at(lack < MAX_EXACT and lack or MAX_EXACT, now, quota) - now_us
  elseif cost > 0 then
    debt = debt + added
    state = charged(state, now, debt - added, debt)
  end
  local rest = debt % scale
  local left = burst - (rest == 0 and debt / scale or (debt - rest) / scale + 1)
  return allowed, state, left > 0 and left or 0, debt > 0 and free_at(debt, now, quota) - now_us or 0, wait_us
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local tick_us = quota.tick_us
  local now = (now_us - now_us % tick_us) / tick_us
  local debt = debt_at(state, now, quota)
  if actual > cost then
    return charged(state, now, debt, math.min(debt + (actual - cost) * quota.cost_scale, most(quota)))
  end
  local taken_at = (taken_at_us - taken_at_us % tick_us) / tick_us
  local before, count = carried(state, now)
  local refund = taken_at > now and 0 or math.min((cost - actual) * quota.cost_scale, debt)
  for i = 3, count, 2 do
    if before[i] > taken_at and before[i + 1] < refund then refund = before[i + 1] end
  end
  if debt == refund then return {} end
  local after, kept = {debt - refund, now, nil, nil}, 2
  for i = 3, count, 2 do
    kept = with_trough(after, kept, before[i], before[i] > taken_at and before[i + 1] - refund or before[i + 1])
  end
  return after
end

local function expires(state, quota)
  return free_at(math.min(state[1], most(quota)), state[2], quota)
end

return {admit = admit, settle = settle, expires = expires, least = 2, most = 10, step = 2}
