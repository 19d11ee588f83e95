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

local function leaked(state, now, quota)
  local debt, at = state[1], state[2]
  if not debt then return 0, {} end
  if now < at then return debt, {now, 0} end
  local troughs = {}
  for i = 3, #state do troughs[i - 2] = state[i] end
  local elapsed = now - at
  if elapsed >= ceil_div(debt, quota.leak) then return 0, troughs end
  return debt - elapsed * quota.leak, troughs
end

local function rising(troughs)
  local turned = {}
  for i = #troughs - 1, 1, -2 do
    local t, low, last = troughs[i], troughs[i + 1], #turned
    if last == 0 or low < turned[last] then
      if last > 0 and turned[last - 1] == t then last = last - 2 end
      turned[last + 1], turned[last + 2] = t, low
    end
  end
  local kept = {}
  for i = #turned - 1, 1, -2 do
    kept[#kept + 1] = turned[i]
    kept[#kept + 1] = turned[i + 1]
  end
  return kept
end

local function with_trough(troughs, now, debt)
  troughs[#troughs + 1] = now
  troughs[#troughs + 1] = debt
  local kept = rising(troughs)
  if #kept > 2 * MAX_TROUGHS then
    local least = 2
    for i = 4, #kept - 2, 2 do
      if kept[i + 2] - kept[i] < kept[least + 2] - kept[least] then least = i end
    end
    -- One trough in place of two: the later time, the lower debt.
    kept[least - 1] = kept[least + 1]
    table.remove(kept, least + 2)
    table.remove(kept, least + 1)
  end
  return kept
end

local function packed(debt, now, troughs)
  if debt == 0 then return {} end
  local state = {debt, now}
  for i = 1, #troughs do state[i + 2] = troughs[i] end
  return state
end

local function admit(state, now_us, quota, cost)
  local now = floor_div(now_us, quota.tick_us)
  local debt, troughs = leaked(state, now, quota)
  if cost > quota.burst then
    return false, state, remaining(debt, quota), wait(debt, now_us, now, quota), NEVER
  end
  local added = cost * quota.cost_scale
  local lack = min(added - (quota.burst * quota.cost_scale - debt), MAX_EXACT)
  if cost > 0 and lack > 0 then
    return false, state, remaining(debt, quota), wait(debt, now_us, now, quota), wait(lack, now_us, now, quota)
  end
  if cost > 0 then state = packed(debt + added, now, with_trough(troughs, now, debt)) end
  debt = debt + added
  return true, state, remaining(debt, quota), wait(debt, now_us, now, quota), 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local now = floor_div(now_us, quota.tick_us)
  local debt, troughs = leaked(state, now, quota)
  local change = (actual - cost) * quota.cost_scale
  if change >= 0 then
    if change > 0 then troughs = with_trough(troughs, now, debt) end
    return packed(min(debt + change, MAX_EXACT), now, troughs)
  end
  local taken_at = floor_div(taken_at_us, quota.tick_us)
  local refund = min(-change, debt)
  if taken_at > now then refund = 0 end
  for i = 1, #troughs, 2 do
    if troughs[i] > taken_at then refund = min(refund, troughs[i + 1]) end
  end
  for i = 1, #troughs, 2 do
    if troughs[i] > taken_at then troughs[i + 1] = troughs[i + 1] - refund end
  end
  return packed(debt - refund, now, rising(troughs))
end

local function expires(state, quota)
  return (state[2] + ticks(state[1], quota)) * quota.tick_us
end

return {admit = admit, settle = settle, expires = expires}
