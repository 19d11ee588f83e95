-- Twin of fixed_window.py: the same operations in the same order.

-- The count and what it owes under a limit that may have changed.
local function bounded(state, quota)
  local count, limit, owed = state[2], quota.limit, state[4] or 0
  if owed > 0 then
    if count - limit < owed then owed = math.max(0, count - limit) end
    local most = quota.ceiling - limit
    if owed > most then count, owed = count - (owed - most), most end
  end
  return count, owed
end

local function current(counted, count, carried, owed, window, limit)
  if counted == window then return count, carried, owed end
  if counted > window then return count, 0, owed end
  count = math.max(0, owed - (window - counted - 1) * limit)
  return count, count, math.max(0, count - limit)
end

local function paid_at(window, units, quota)
  local limit = quota.limit
  local rest = units % limit
  local windows = rest == 0 and units / limit or (units - rest) / limit + 1
  return (window + windows) * quota.period * MICROSECONDS
end

local function counting(window, count, carried, owed)
  if owed > 0 then return {window, count, carried, owed} end
  if carried > 0 then return {window, count, carried} end
  return {window, count}
end

local function admit(state, now_us, quota, cost)
  local limit, period_us = quota.limit, quota.period * MICROSECONDS
  local window = (now_us - now_us % period_us) / period_us
  local count, carried, owed = 0, 0, 0
  if state[1] then
    count, owed = bounded(state, quota)
    count, carried, owed = current(state[1], count, state[3] or 0, owed, window, limit)
  end
  local left = limit - count
  if cost > left then
    local reset_us = count > 0 and paid_at(window, limit + owed, quota) - now_us or 0
    local wait_us = cost > limit and NEVER or paid_at(window, math.max(1, owed + cost), quota) - now_us
    return false, state, left > 0 and left or 0, reset_us, wait_us
  end
  if cost > 0 then
    count = count + cost
    state = counting(window, count, carried, 0)
  end
  return true, state, left - cost, count > 0 and (window + 1) * period_us - now_us or 0, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual)
  local limit, period_us = quota.limit, quota.period * MICROSECONDS
  local window = (now_us - now_us % period_us) / period_us
  local count, carried, owed = 0, 0, 0
  if state[1] then count, carried, owed = current(state[1], state[2], state[3] or 0, state[4] or 0, window, limit) end
  local age = window - (taken_at_us - taken_at_us % period_us) / period_us
  if actual >= cost then
    local added, room = actual - cost, owed > 0 and 0 or math.max(0, limit - count)
    if count - owed <= limit then added = math.min(added, room + math.max(0, quota.ceiling - limit - owed)) end
    added = math.min(added, MAX_EXACT - count)
    count, owed = count + added, owed + math.max(0, added - room)
  elseif age == 0 then
    local refund = math.min(cost - actual, count)
    count, owed = count - refund, math.max(0, owed - refund)
  elseif age == 1 then
    local refund = math.min(cost - actual, carried)
    count, carried, owed = count - refund, carried - refund, math.max(0, owed - refund)
  end
  if count == 0 then return {} end
  return counting(window, count, math.min(count, carried), owed)
end

local function expires(state, quota)
  local _, owed = bounded(state, quota)
  return paid_at(state[1], quota.limit + owed, quota)
end

return {admit = admit, settle = settle, expires = expires, least = 2, most = 4, step = 1, follows_clock = true}
