-- Twin of fixed_window.py: the same operations in the same order.

local function current(state, now_us, quota)
  local window = floor_div(now_us, quota.period * MICROSECONDS)
  if state[1] and state[1] >= window then return window, state[2] end
  return window, 0
end

local function packed(window, count)
  if count == 0 then return {} end
  return {window, count}
end

local function admit(state, now_us, quota, cost)
  local window, count = current(state, now_us, quota)
  local ends_after = (window + 1) * quota.period * MICROSECONDS - now_us
  local reset_us = count > 0 and ends_after or 0
  if cost > quota.limit then return false, state, max(0, quota.limit - count), reset_us, NEVER end
  if cost > 0 and count + cost > quota.limit then
    return false, state, max(0, quota.limit - count), ends_after, ends_after
  end
  if cost > 0 then
    count = count + cost
    state = {window, count}
  end
  return true, state, max(0, quota.limit - count), count > 0 and ends_after or 0, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local window, count = current(state, now_us, quota)
  if actual >= cost then return packed(window, min(count + (actual - cost), MAX_EXACT)) end
  if floor_div(taken_at_us, quota.period * MICROSECONDS) ~= window then return state end
  return packed(window, max(0, count - (cost - actual)))
end

local function expires(state, quota)
  return (state[1] + 1) * quota.period * MICROSECONDS
end

return {admit = admit, settle = settle, expires = expires}
