-- Twin of moving_window.py: the same operations in the same order. A log is its entries' numbers: t1, units1, t2, ...

local MAX_ENTRIES = 64
local SLOTS = 60

local function slot(t, quota)
  return floor_div(t, floor_div(quota.period * MICROSECONDS, SLOTS))
end

local function add(log, t, units)
  local last = #log
  if log[last - 1] == t then
    log[last] = min(log[last] + units, MAX_EXACT)
  else
    log[last + 1], log[last + 2] = t, units
  end
end

local function live(state, now_us, quota)
  local start = now_us - quota.period * MICROSECONDS
  local log = {}
  for i = 1, #state, 2 do
    if state[i] > start then log[#log + 1], log[#log + 2] = state[i], state[i + 1] end
  end
  if #log == 0 or log[#log - 1] <= now_us then return log end
  local present = {}
  for i = 1, #log, 2 do add(present, min(log[i], now_us), log[i + 1]) end
  return present
end

local function packed(log, quota)
  if #log <= 2 * MAX_ENTRIES then return log end
  local merged = {}
  for i = 1, #log, 2 do
    local last = #merged
    if last > 0 and slot(merged[last - 1], quota) == slot(log[i], quota) then
      merged[last - 1], merged[last] = log[i], min(merged[last] + log[i + 1], MAX_EXACT)
    else
      merged[last + 1], merged[last + 2] = log[i], log[i + 1]
    end
  end
  return merged
end

local function room_at(log, kept, quota)
  local left = 0
  for i = #log - 1, 1, -2 do
    left = left + log[i + 1]
    if left > kept then return log[i] + quota.period * MICROSECONDS end
  end
end

local function admit(state, now_us, quota, cost)
  local log = live(state, now_us, quota)
  local used = 0
  for i = 2, #log, 2 do used = used + log[i] end
  local left = max(0, quota.limit - used)
  local reset_us = #log > 0 and log[#log - 1] + quota.period * MICROSECONDS - now_us or 0
  if cost > quota.limit then return false, state, left, reset_us, NEVER end
  if cost > 0 and used + cost > quota.limit then
    return false, state, left, reset_us, room_at(log, quota.limit - cost, quota) - now_us
  end
  if cost > 0 then
    add(log, now_us, cost)
    state = packed(log, quota)
    reset_us = quota.period * MICROSECONDS
  end
  return true, state, max(0, left - cost), reset_us, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local log = live(state, now_us, quota)
  if actual >= cost then
    if actual > cost then add(log, now_us, actual - cost) end
    return packed(log, quota)
  end
  if taken_at_us + quota.period * MICROSECONDS <= now_us then return state end
  local kept, found = {}, false
  for i = 1, #log, 2 do
    local t, units = log[i], log[i + 1]
    if not found and t >= taken_at_us then
      found = true
      if slot(t, quota) == slot(taken_at_us, quota) then units = max(0, units - (cost - actual)) end
    end
    if units > 0 then kept[#kept + 1], kept[#kept + 2] = t, units end
  end
  return packed(kept, quota)
end

local function expires(state, quota)
  return state[#state - 1] + quota.period * MICROSECONDS
end

return {admit = admit, settle = settle, expires = expires}
