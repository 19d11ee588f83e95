-- Twin of token_bucket.py: the same operations in the same order.

local MAX_TROUGHS = 4
local LIFETIME_US = 4503599627370496
local FIRST_TROUGH = 6
local PARTS = 1024
local NOTHING = 4
local MOST_DEBT_PERIODS = 1000

-- The microsecond at which what is owed at a microsecond has leaked; of more than a lifetime, only that it is.
local function free_at(debt, at, rate)
  local leak, tick_us = rate.leak, rate.tick_us
  local rest = debt % leak
  local ticks = rest == 0 and debt / leak or (debt - rest) / leak + 1
  local most = (LIFETIME_US - LIFETIME_US % tick_us) / tick_us
  return at + (ticks < most and ticks or most) * tick_us
end

-- The rate of a limit and a burst in the period of a quota: twin of quota.py's rate_of. Without a bound of debts.
local function rate_of(limit, burst, quota)
  local tick_us, ticks, shared, rest = 1, quota.period * MICROSECONDS, 0, 0
  while true do
    shared, rest = ticks, limit
    while rest > 0 do shared, rest = rest, shared % rest end
    if burst * (ticks / shared) <= MAX_EXACT or tick_us == MICROSECONDS then break end
    tick_us, ticks = tick_us * 1000, ticks / 1000
  end
  local scale, leak, factor = ticks / shared, limit / shared, 1
  while (burst + MOST_DEBT_PERIODS * limit) * scale * factor * 2 <= MAX_EXACT do factor = factor * 2 end
  return {tick_us = tick_us, cost_scale = scale * factor, leak = leak * factor, burst = burst, ceiling = MAX_EXACT}
end

local function most(rate)
  return math.min(rate.ceiling * rate.cost_scale, MAX_EXACT)
end

local function debt_at(state, now, rate)
  local debt, at, leak = state[1], state[2], rate.leak
  if not debt then return 0 end
  if debt > rate.burst * rate.cost_scale then debt = math.min(debt, most(rate)) end
  if now <= at then return debt end
  -- In this order no step leaves the integers that are counted exactly.
  local rest, passed = debt % leak, (now - at) % rate.tick_us
  local ticks = rest == 0 and debt / leak or (debt - rest) / leak + 1
  passed = (now - at - passed) / rate.tick_us
  if passed >= ticks then return 0 end
  return debt - passed * leak
end

-- Adds a trough to those of a state: drops each that the new one is at least as low as, and of those of one tick all but
-- the lowest. Answers how many numbers the state has then.
local function with_trough(state, count, t, low)
  while count > 5 and state[count] >= low do
    state[count - 1], state[count] = nil, nil
    count = count - 2
  end
  if count > 5 and state[count - 1] >= t then return count end
  state[count + 1], state[count + 2] = t, low
  return count + 2
end

-- The count under another limit or burst than before, now; empty if nothing is left of it.
local function under(state, now_us, quota)
  local at, burst, aside = state[2], state[4], state[5]
  if state[3] < 1 or burst < 1 then return {} end
  local before, scale, tick_us = rate_of(state[3], burst, quota), quota.cost_scale, quota.tick_us
  local now, speed, units = now_us - now_us % tick_us, quota.leak / tick_us / scale, state[1] / before.cost_scale
  if now_us >= at and now < at then
    units = units + (at - now) * speed
  elseif now >= at then
    units = units - (now - at) * math.min(speed, before.leak / before.tick_us / before.cost_scale)
    if units * scale < NOTHING then return {} end
  end
  local owed = math.max(0, units - burst)
  local granted = units - owed + aside / PARTS
  aside = math.min(math.max(0, math.ceil((granted - quota.burst) * PARTS)), MAX_EXACT)
  local debt = math.min(math.floor((granted - aside / PARTS + owed) * scale + 0.5), most(quota))
  if debt <= 0 then return {} end
  local after = {debt, now, quota.limit, quota.burst, aside}
  if now_us < at then
    after[6], after[7] = now, 0
    return after
  end
  local kept = 5
  for i = FIRST_TROUGH, #state, 2 do
    local low = math.min(math.floor(state[i + 1] / before.cost_scale * scale), MAX_EXACT)
    kept = with_trough(after, kept, state[i], low)
  end
  return after
end

-- The state now, with room for its debt, and how many numbers it has. What was set aside is forgotten with a debt.
local function carried(state, now, quota, debt)
  local count, aside = #state, debt > 0 and state[5] or 0
  if count == 0 then return {0, now, quota.limit, quota.burst, 0, nil, nil}, 5 end
  if now < state[2] then return {0, now, state[3], state[4], aside, now, 0}, 7 end
  return {
    0, now, state[3], state[4], aside, state[6], state[7], state[8], state[9], state[10], state[11], state[12], state[13],
  }, count
end

local function charged(state, now, quota, debt, owed)
  local after, count = carried(state, now, quota, debt)
  after[1] = owed
  count = with_trough(after, count, now, debt)
  if count <= 5 + 2 * MAX_TROUGHS then return after end
  local least = 7
  for i = 9, count - 2, 2 do
    if after[i + 2] - after[i] < after[least + 2] - after[least] then least = i end
  end
  -- One trough in place of two: the later time, the lower debt.
  after[least - 1] = after[least + 1]
  table.remove(after, least + 2)
  table.remove(after, least + 1)
  return after
end

local function admit(state, now_us, quota, cost)
  local tick_us, burst, scale, count = quota.tick_us, quota.burst, quota.cost_scale, state
  if state[1] and (state[3] ~= quota.limit or state[4] ~= burst) then
    count = under(state, now_us, quota)
    if count[1] then state = count end
  end
  local now = now_us - now_us % tick_us
  local debt = debt_at(count, now, quota)
  local allowed, wait_us, added = true, 0, cost * scale
  local lack = added - (burst * scale - debt)
  if cost > burst then
    allowed, wait_us = false, NEVER
  elseif lack > 0 then
    allowed, wait_us = false, free_at(lack < MAX_EXACT and lack or MAX_EXACT, now, quota) - now_us
  elseif cost > 0 then
    debt = debt + added
    state = charged(count, now, quota, debt - added, debt)
  end
  local rest = debt % scale
  local left = burst - (rest == 0 and debt / scale or (debt - rest) / scale + 1)
  return allowed, state, left > 0 and left or 0, debt > 0 and free_at(debt, now, quota) - now_us or 0, wait_us
end

local function settle(state, now_us, quota, taken_at_us, cost, actual, _, is_told)
  local rate, is_own = quota, not state[1] or (state[3] == quota.limit and state[4] == quota.burst)
  if not is_own then
    if state[3] < 1 or state[4] < 1 then return {} end
    rate = rate_of(state[3], state[4], quota)
  end
  local tick_us, scale = rate.tick_us, rate.cost_scale
  local now = now_us - now_us % tick_us
  local debt = debt_at(state, now, rate)
  local change = (actual - cost) * scale
  if is_told then change = math.max(0, math.min(actual * scale, most(rate)) - debt) end
  if change > 0 then return charged(state, now, quota, debt, math.min(debt + change, most(rate))) end
  local before, count = carried(state, now, quota, debt)
  local undone = taken_at_us - taken_at_us % tick_us > now and 0 or -change
  if undone > 0 and not is_own and before[5] > 0 then
    local back = math.min((cost - actual) * PARTS, before[5])
    before[5] = before[5] - back
    undone = math.floor((cost - actual - back / PARTS) * scale)
  end
  local refund = math.min(undone, debt)
  for i = FIRST_TROUGH, count, 2 do
    if before[i] > taken_at_us and before[i + 1] < refund then refund = before[i + 1] end
  end
  if debt == refund then return {} end
  local after, kept = {debt - refund, now, before[3], before[4], before[5], nil, nil}, 5
  for i = FIRST_TROUGH, count, 2 do
    kept = with_trough(after, kept, before[i], before[i] > taken_at_us and before[i + 1] - refund or before[i + 1])
  end
  return after
end

local function expires(state, quota)
  local rate = quota
  if state[3] ~= quota.limit or state[4] ~= quota.burst then
    if state[3] < 1 or state[4] < 1 then return 0 end
    rate = rate_of(state[3], state[4], quota)
  end
  return free_at(math.min(state[1], most(rate)), state[2], rate)
end

return {admit = admit, settle = settle, expires = expires, least = 5, most = 13, step = 2}
