-- Twin of sliding_window.py: the same operations in the same order.

local function resolution(quota)
  for _, tick in ipairs({1, 1000}) do
    local period = quota.period * MICROSECONDS / tick
    if 4 * quota.limit * period <= MAX_EXACT then return tick, period end
  end
  return MICROSECONDS, quota.period
end

local function bounded(state, quota)
  local previous = min(state[3], quota.ceiling)
  return state[1], min(state[2], quota.ceiling - max(0, previous - quota.limit)), previous
end

local function present(state, now_us, quota)
  local window = floor_div(now_us, quota.period * MICROSECONDS)
  if not state[1] then return window, 0, 0 end
  local since, current, previous = bounded(state, quota)
  if since >= window then return window, current, previous end
  local ended = current + max(0, previous - quota.limit)
  return window, 0, max(0, ended - (window - since - 1) * quota.limit)
end

local function counted(current, previous, quota)
  local owed = previous - quota.limit
  if owed > 0 then return current + owed, quota.limit end
  return current, previous
end

local function fits_tick(window, full, fading, room, quota, period)
  if full <= room then return (window + 1) * period - floor_div((room - full) * period, fading) end
  local later = max(1, ceil_div(full - room, quota.limit))
  fading = full - (later - 1) * quota.limit
  full = max(0, fading - quota.limit)
  return (window + 1 + later) * period - floor_div((room - full) * period, fading - full)
end

local function admit(state, now_us, quota, cost)
  local tick, period = resolution(quota)
  local window, current, previous = present(state, now_us, quota)
  local full, fading = counted(current, previous, quota)
  local left = quota.limit - full - ceil_div(fading * ((window + 1) * period - floor_div(now_us, tick)), period)
  local used = full > 0 or fading > 0
  if cost > left then
    local reset_us, wait_us = 0, NEVER
    if used then reset_us = fits_tick(window, full, fading, 0, quota, period) * tick - now_us end
    if cost <= quota.limit then
      wait_us = fits_tick(window, full, fading, quota.limit - cost, quota, period) * tick - now_us
    end
    return false, state, max(0, left), reset_us, wait_us
  end
  if cost > 0 then
    state = {window, current + cost, previous}
    full, used = full + cost, true
  end
  return true, state, left - cost, used and fits_tick(window, full, fading, 0, quota, period) * tick - now_us or 0, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local window, current, previous = present(state, now_us, quota)
  local age = window - floor_div(taken_at_us, quota.period * MICROSECONDS)
  if actual >= cost then
    current = min(current + (actual - cost), quota.ceiling - max(0, previous - quota.limit))
  elseif age == 0 then
    current = max(0, current - (cost - actual))
  elseif age == 1 then
    previous = max(0, previous - (cost - actual))
  end
  if current == 0 and previous == 0 then return {} end
  return {window, current, previous}
end

local function expires(state, quota)
  local tick, period = resolution(quota)
  local window, current, previous = bounded(state, quota)
  local full, fading = counted(current, previous, quota)
  return fits_tick(window, full, fading, 0, quota, period) * tick
end

return {admit = admit, settle = settle, expires = expires, least = 3, most = 3, step = 1}
