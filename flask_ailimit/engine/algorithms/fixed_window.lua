-- Twin of fixed_window.py: the same operations in the same order.

local function current(state, now_us, quota)
  local period_us, counted = quota.period * MICROSECONDS, state[1]
  local window = (now_us - now_us % period_us) / period_us
  if not counted then return window, 0, 0 end
  local count = state[2] < quota.ceiling and state[2] or quota.ceiling
  if counted == window then return window, count, state[3] or 0 end
  if counted > window then return window, count, 0 end
  count = math.max(0, count - (window - counted) * quota.limit)
  return window, count, count
end

local function paid_at(window, units, quota)
  local limit = quota.limit
  local rest = units % limit
  local windows = rest == 0 and units / limit or (units - rest) / limit + 1
  return (window + windows) * quota.period * MICROSECONDS
end

local function counting(window, count, carried)
  if carried > 0 then return {window, count, carried} end
  return {window, count}
end

local function admit(state, now_us, quota, cost)
  local limit, window, count, carried = quota.limit, current(state, now_us, quota)
  local left = limit - count
  if cost > left then
    local reset_us = count > 0 and paid_at(window, count, quota) - now_us or 0
    local wait_us = cost > limit and NEVER or paid_at(window, cost - left, quota) - now_us
    return false, state, left > 0 and left or 0, reset_us, wait_us
  end
  if cost > 0 then
    count = count + cost
    state = counting(window, count, carried)
  end
  return true, state, left - cost, count > 0 and (window + 1) * quota.period * MICROSECONDS - now_us or 0, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local period_us, window, count, carried = quota.period * MICROSECONDS, current(state, now_us, quota)
  local age = window - (taken_at_us - taken_at_us % period_us) / period_us
  if actual >= cost then
    count = math.min(count + (actual - cost), quota.ceiling)
  elseif age == 0 then
    count = math.max(0, count - (cost - actual))
  elseif age == 1 then
    local refund = math.min(cost - actual, carried)
    count, carried = count - refund, carried - refund
  end
  if count == 0 then return {} end
  return counting(window, count, math.min(count, carried))
end

local function expires(state, quota)
  return paid_at(state[1], math.min(state[2], quota.ceiling), quota)
end

return {admit = admit, settle = settle, expires = expires, least = 2, most = 3, step = 1}
