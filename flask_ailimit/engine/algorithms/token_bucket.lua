-- Twin of token_bucket.py: the same operations in the same order.

local MAX_TROUGHS = 4
local LIFETIME_US = 4503599627370496

local function ticks(debt, quota)
  return min(ceil_div(debt, quota.leak), floor_div(LIFETIME_US, quota.tick_us))
end

local function wait(debt, now_us, now, quota)
  if debt == 0 then return 0 end
  return (now + ticks(debt, quota)) * quota.tick_us - now_us
end

local function remaining(debt, quota)
  return max(0, quota.burst - ceil_div(debt, quota.cost_scale))
end

local function debt_at(state, now, quota)
  local debt, at = state[1], state[2]
  if not debt then return 0 end
  if now <= at then return debt end
  if now - at >= ceil_div(debt, quota.leak) then return 0 end
  return debt - (now - at) * quota.leak
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
  if not state[1] then return {0, now}, 2 end
  if now < state[2] then return {0, now, now, 0}, 4 end
  local copy = {0, now}
  for i = 3, #state do copy[i] = state[i] end
  return copy, #state
end

local function merged(state, count)
  if count <= 2 + 2 * MAX_TROUGHS then return state end
  local least = 4
  for i = 6, count - 2, 2 do
    if state[i + 2] - state[i] < state[least + 2] - state[least] then least = i end
  end
  -- One trough in place of two: the later time, the lower debt.
  state[least - 1] = state[least + 1]
  table.remove(state, least + 2)
  table.remove(state, least + 1)
  return state
end

local function charged(state, now, debt, added)
  local after, count = carried(state, now)
  after[1] = min(debt + added, MAX_EXACT)
  return merged(after, with_trough(after, count, now, debt))
end

local function admit(state, now_us, quota, cost)
  local now = floor_div(now_us, quota.tick_us)
  local debt = debt_at(state, now, quota)
  if cost > quota.burst then
    return false, state, remaining(debt, quota), wait(debt, now_us, now, quota), NEVER
  end
  local added = cost * quota.cost_scale
  local lack = min(added - (quota.burst * quota.cost_scale - debt), MAX_EXACT)
  if cost > 0 and lack > 0 then
    return false, state, remaining(debt, quota), wait(debt, now_us, now, quota), wait(lack, now_us, now, quota)
  end
  if cost > 0 then state = charged(state, now, debt, added) end
  debt = debt + added
  return true, state, remaining(debt, quota), wait(debt, now_us, now, quota), 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local now = floor_div(now_us, quota.tick_us)
  local debt = debt_at(state, now, quota)
  if actual > cost then return charged(state, now, debt, (actual - cost) * quota.cost_scale) end
  local taken_at = floor_div(taken_at_us, quota.tick_us)
  local before, count = carried(state, now)
  local refund = taken_at > now and 0 or min((cost - actual) * quota.cost_scale, debt)
  for i = 3, count, 2 do
    if before[i] > taken_at then refund = min(refund, before[i + 1]) end
  end
  if debt == refund then return {} end
  local after, kept = {debt - refund, now}, 2
  for i = 3, count, 2 do
    kept = with_trough(after, kept, before[i], before[i] > taken_at and before[i + 1] - refund or before[i + 1])
  end
  return after
end

local function expires(state, quota)
  return (state[2] + ticks(state[1], quota)) * quota.tick_us
end

return {admit = admit, settle = settle, expires = expires}
