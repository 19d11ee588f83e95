-- Twin of sliding_window.py: the same operations in the same order.

local function resolution(quota, units)
  local most = max(quota.limit, units)
  for _, tick in ipairs({1, 1000}) do
    local period = quota.period * MICROSECONDS / tick
    if 4 * most * period <= MAX_EXACT then return tick, period end
  end
  return MICROSECONDS, quota.period
end

local function bounded(state, quota)
  local limit, most = quota.limit, quota.ceiling - quota.limit
  local current, previous = state[2], state[3]
  local owed = min(state[4] or 0, max(0, previous - limit))
  local excess = max(0, owed - most)
  previous, owed = previous - excess, owed - excess
  local beyond = min(max(0, (state[5] or 0) - excess), max(0, current + owed - limit))
  excess = min(max(0, beyond - most), current)
  return state[1], current - excess, previous, owed, beyond - excess
end

local function present(since, current, previous, owed, beyond, window, limit)
  local passed = window - since
  if passed <= 0 then return current, previous, owed, beyond end
  if passed == 1 then return 0, current + owed, beyond, max(0, beyond - limit) end
  owed = max(0, beyond - (passed - 1) * limit)
  return 0, max(0, beyond - (passed - 2) * limit), owed, max(0, owed - limit)
end

local function packed(window, current, previous, owed, beyond)
  if owed > 0 or beyond > 0 then return {window, current, previous, owed, beyond} end
  if current == 0 and previous == 0 then return {} end
  return {window, current, previous}
end

local function fits_tick(window, full, fading, beyond, room, quota, period)
  if full <= room then return (window + 1) * period - floor_div((room - full) * period, fading) end
  local limit = quota.limit
  local later = 1 + max(0, ceil_div(beyond - room, limit))
  local before = later == 1 and full or beyond - (later - 2) * limit
  full = max(0, beyond - (later - 1) * limit)
  return (window + 1 + later) * period - floor_div((room - full) * period, before - full)
end

local function admit(state, now_us, quota, cost)
  local limit, window = quota.limit, floor_div(now_us, quota.period * MICROSECONDS)
  local since, current, previous, owed, beyond = window, 0, 0, 0, 0
  if state[1] then
    since, current, previous, owed, beyond = bounded(state, quota)
    current, previous, owed, beyond = present(since, current, previous, owed, beyond, window, limit)
  end
  local full, fading = current + owed, previous - owed
  local tick, period = resolution(quota, max(fading, full - beyond))
  local left = limit - full - ceil_div(fading * ((window + 1) * period - floor_div(now_us, tick)), period)
  local used = full > 0 or fading > 0
  if cost > left then
    local reset_us, wait_us = 0, NEVER
    if used then reset_us = fits_tick(window, full, fading, beyond, 0, quota, period) * tick - now_us end
    if cost <= limit then
      wait_us = fits_tick(window, full, fading, beyond, limit - cost, quota, period) * tick - now_us
    end
    return false, state, max(0, left), reset_us, wait_us
  end
  if cost > 0 then
    state = packed(window, current + cost, previous, owed, beyond)
    full, used = full + cost, true
  end
  local reset_us = used and fits_tick(window, full, fading, beyond, 0, quota, period) * tick - now_us or 0
  return true, state, left - cost, reset_us, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local limit, window = quota.limit, floor_div(now_us, quota.period * MICROSECONDS)
  local current, previous, owed, beyond = 0, 0, 0, 0
  if state[1] then
    current, previous, owed, beyond = present(state[1], state[2], state[3], state[4] or 0, state[5] or 0, window, limit)
  end
  local age = window - floor_div(taken_at_us, quota.period * MICROSECONDS)
  if actual >= cost then
    local full, added = current + owed, actual - cost
    local room = beyond > 0 and 0 or max(0, limit - full)
    if full - beyond <= limit then added = min(added, room + max(0, quota.ceiling - limit - beyond)) end
    added = min(added, MAX_EXACT - full)
    current, beyond = current + added, beyond + max(0, added - room)
  elseif age == 0 then
    local refund = min(cost - actual, current)
    current, beyond = current - refund, max(0, beyond - refund)
  elseif age == 1 then
    local refund = min(cost - actual, previous)
    previous, beyond = previous - refund, max(0, beyond - min(refund, owed))
    owed = max(0, owed - refund)
  end
  return packed(window, current, previous, owed, beyond)
end

local function expires(state, quota)
  local window, current, previous, owed, beyond = bounded(state, quota)
  local full, fading = current + owed, previous - owed
  local tick, period = resolution(quota, max(fading, full - beyond))
  return fits_tick(window, full, fading, beyond, 0, quota, period) * tick
end

return {admit = admit, settle = settle, expires = expires, least = 3, most = 5, step = 2}
