-- Twin of fixed_window.py: the same operations in the same order.

local function current(state, now_us, quota)
  local period_us = quota.period * MICROSECONDS
  local window = (now_us - now_us % period_us) / period_us
  if state[1] and state[1] >= window then return window, state[2], period_us end
  return window, 0, period_us
end

local function admit(state, now_us, quota, cost)
  local limit, window, count, period_us = quota.limit, current(state, now_us, quota)
  local ends_after = (window + 1) * period_us - now_us
  local left = limit > count and limit - count or 0
  local reset_us = count > 0 and ends_after or 0
  if cost > limit then return false, state, left, reset_us, NEVER end
  if cost == 0 then return true, state, left, reset_us, 0 end
  if cost > left then return false, state, left, ends_after, ends_after end
  return true, {window, count + cost}, left - cost, ends_after, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local window, count, period_us = current(state, now_us, quota)
  if actual < cost and (taken_at_us - taken_at_us % period_us) / period_us ~= window then return state end
  count = math.min(math.max(0, count + (actual - cost)), MAX_EXACT)
  if count == 0 then return {} end
  return {window, count}
end

local function expires(state, quota)
  return (state[1] + 1) * quota.period * MICROSECONDS
end

return {admit = admit, settle = settle, expires = expires}
