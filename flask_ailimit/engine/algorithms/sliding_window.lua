-- Twin of sliding_window.py: the same operations in the same order.

local function resolution(quota)
  for _, tick in ipairs({1, 1000}) do
    local period = quota.period * MICROSECONDS / tick
    if 4 * quota.limit * period <= MAX_EXACT then return tick, period end
  end
  return MICROSECONDS, quota.period
end

local function counted(state, now_us, quota)
  local window = floor_div(now_us, quota.period * MICROSECONDS)
  if not state[1] then return window, 0, 0 end
  if state[1] >= window then return window, state[2], state[3] end
  return window, 0, state[1] == window - 1 and state[2] or 0
end

local function fits_tick(window, current, previous, room, period)
  if current <= room then return (window + 1) * period - floor_div((room - current) * period, previous) end
  return (window + 2) * period - floor_div(room * period, current)
end

local function reset_tick(window, current, previous, period)
  if current == 0 and previous == 0 then return window * period end
  return fits_tick(window, current, previous, 0, period)
end

local function admit(state, now_us, quota, cost)
  local tick, period = resolution(quota)
  local window, current, previous = counted(state, now_us, quota)
  local left = (window + 1) * period - floor_div(now_us, tick)
  local used = current + ceil_div(previous * left, period)
  local reset_us = used > 0 and reset_tick(window, current, previous, period) * tick - now_us or 0
  if cost > quota.limit then return false, state, max(0, quota.limit - used), reset_us, NEVER end
  if cost > 0 and used + cost > quota.limit then
    local fits = fits_tick(window, current, previous, quota.limit - cost, period)
    return false, state, max(0, quota.limit - used), reset_us, fits * tick - now_us
  end
  if cost > 0 then
    state = {window, current + cost, previous}
    reset_us = reset_tick(window, current + cost, previous, period) * tick - now_us
  end
  return true, state, max(0, quota.limit - used - cost), reset_us, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local _, period = resolution(quota)
  local window, current, previous = counted(state, now_us, quota)
  local age = window - floor_div(taken_at_us, quota.period * MICROSECONDS)
  if actual >= cost then
    current = min(current + (actual - cost), floor_div(MAX_EXACT, period))
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
  return reset_tick(state[1], state[2], state[3], period) * tick
end

return {admit = admit, settle = settle, expires = expires}
