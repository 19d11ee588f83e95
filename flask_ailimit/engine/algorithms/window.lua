-- Twin of window.py: the same operations in the same order.

local function current(state, now_us, quota)
  if not state[1] or now_us >= state[2] then return now_us, window_end_us(quota, now_us), 0 end
  if now_us < state[1] then return now_us, window_end_us(quota, now_us), state[3] end
  return state[1], state[2], state[3]
end

local function admit(state, now_us, quota, cost)
  local limit = quota.limit
  local began, ends, count = current(state, now_us, quota)
  local left = limit - count
  if cost > left then
    return false, state, math.max(0, left), count > 0 and ends - now_us or 0, cost > limit and NEVER or ends - now_us
  end
  if cost > 0 then
    count = count + cost
    state = {began, ends, count}
  end
  return true, state, limit - count, count > 0 and ends - now_us or 0, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local began, ends, count = current(state, now_us, quota)
  if actual >= cost then
    count = count + math.min(actual - cost, MAX_EXACT - count)
  elseif taken_at_us >= began then
    count = count - math.min(cost - actual, count)
  end
  return count > 0 and {began, ends, count} or {}
end

local function expires(state)
  return state[2]
end

return {admit = admit, settle = settle, expires = expires, least = 3, most = 3, step = 1}
