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

local function units_of(log)
  local units = 0
  for i = 2, #log, 2 do units = units + log[i] end
  return units
end

-- A log of its own, and what is owed beside it.
local function read_log(state)
  local last, debt, log = #state, 0, {}
  if last > 2 and state[last - 1] == MAX_EXACT then
    debt = state[last]
    last = last - 2
  end
  for i = 1, last do log[i] = state[i] end
  return log, debt
end

-- Changes the log.
local function repaid(log, debt, until_us, quota)
  local period_us, limit = quota.period * MICROSECONDS, quota.limit
  local used = debt > 0 and units_of(log) or 0
  while debt > 0 and #log > 0 and log[1] + period_us <= until_us do
    local periods = 0
    if used == limit then
      periods = min(floor_div(debt, limit), floor_div(until_us - log[#log - 1], period_us))
    end
    if periods > 0 then
      for i = 1, #log, 2 do log[i] = log[i] + periods * period_us end
      debt = debt - periods * limit
    else
      local t, units = table.remove(log, 1), table.remove(log, 1)
      local taken = min(debt, max(0, limit - used + units))
      if taken > 0 then add(log, t + period_us, taken) end
      debt = debt - taken
      used = used + (taken - units)
    end
  end
  return debt
end

local function present(log, debt, now_us, quota)
  debt = repaid(log, debt, now_us, quota)
  local start, kept = now_us - quota.period * MICROSECONDS, {}
  for i = 1, #log, 2 do
    if log[i] > start then kept[#kept + 1], kept[#kept + 2] = log[i], log[i + 1] end
  end
  if #kept == 0 or kept[#kept - 1] <= now_us then return kept, debt end
  local moved = {}
  for i = 1, #kept, 2 do add(moved, min(kept[i], now_us), kept[i + 1]) end
  return moved, debt
end

local function packed(log, debt, quota)
  if #log > 2 * MAX_ENTRIES then
    local merged = {}
    for i = 1, #log, 2 do
      local last = #merged
      if last > 0 and slot(merged[last - 1], quota) == slot(log[i], quota) then
        merged[last - 1], merged[last] = log[i], min(merged[last] + log[i + 1], MAX_EXACT)
      else
        merged[last + 1], merged[last + 2] = log[i], log[i + 1]
      end
    end
    log = merged
  end
  if debt > 0 then log[#log + 1], log[#log + 2] = MAX_EXACT, debt end
  return log
end

local function room_at(log, kept, quota)
  local left = 0
  for i = #log - 1, 1, -2 do
    left = left + log[i + 1]
    if left > kept then return log[i] + quota.period * MICROSECONDS end
  end
  return log[#log - 1]
end

local function admit(state, now_us, quota, cost)
  local limit, period_us = quota.limit, quota.period * MICROSECONDS
  local log, debt = read_log(state)
  log, debt = present(log, min(debt, quota.ceiling - limit), now_us, quota)
  local taken = min(debt, max(0, limit - units_of(log)))
  if taken > 0 then
    add(log, now_us, taken)
    state = packed(log, debt - taken, quota)
    log, debt = read_log(state)
  end
  local used = units_of(log) + debt
  local left = max(0, limit - used)
  local fits = used + cost <= limit
  if not fits then repaid(log, debt, MAX_EXACT, quota) end
  local reset_us = #log > 0 and log[#log - 1] + period_us - now_us or 0
  if not fits then
    return false, state, left, reset_us, cost > limit and NEVER or room_at(log, limit - cost, quota) - now_us
  end
  if cost > 0 then
    add(log, now_us, cost)
    state = packed(log, 0, quota)
    reset_us = period_us
  end
  return true, state, left - cost, reset_us, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local log, owed = read_log(state)
  log, owed = present(log, owed, now_us, quota)
  local debt = owed
  if actual > cost then
    debt = debt + min(actual - cost, MAX_EXACT - owed)
  elseif actual < cost and taken_at_us + quota.period * MICROSECONDS > now_us then
    local kept, found = {}, false
    for i = 1, #log, 2 do
      local t, units = log[i], log[i + 1]
      if not found and t >= taken_at_us then
        found = true
        if slot(t, quota) == slot(taken_at_us, quota) then units = max(0, units - (cost - actual)) end
      end
      if units > 0 then kept[#kept + 1], kept[#kept + 2] = t, units end
    end
    log = kept
  end
  local used = units_of(log)
  local taken = min(debt, max(0, quota.limit - used))
  if taken > 0 then add(log, now_us, taken) end
  debt = debt - taken
  if used <= quota.limit then debt = min(debt, max(owed, quota.ceiling - quota.limit)) end
  return packed(log, debt, quota)
end

local function expires(state, quota)
  local latest = state[#state - 1]
  if latest ~= MAX_EXACT then return latest + quota.period * MICROSECONDS end
  local log, debt = read_log(state)
  repaid(log, min(debt, quota.ceiling - quota.limit), MAX_EXACT, quota)
  return log[#log - 1] + quota.period * MICROSECONDS
end

return {admit = admit, settle = settle, expires = expires, least = 2, most = 130, step = 2}
