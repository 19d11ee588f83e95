-- Twin of concurrency.py: the same operations in the same order.

local LEAST_RETRY_AFTER_US = MICROSECONDS
local MOST_LEASES = 20000

-- The leases that run, how many numbers that is, and when the last of them ends.
local function live(state, now_us, quota)
  local latest = now_us + quota.period * MICROSECONDS
  local leases, count, last = {}, 0, now_us
  for i = 1, #state, 2 do
    local ends = state[i]
    if ends > now_us then
      if ends > latest then ends = latest end
      if ends > last then last = ends end
      leases[count + 1], leases[count + 2] = ends, state[i + 1]
      count = count + 2
    end
  end
  return leases, count, last
end

local function admit(state, now_us, quota, cost, lease)
  local leases, count, last = live(state, now_us, quota)
  local left = quota.limit - count / 2
  local reset_us = last - now_us
  if cost > left then
    local wait_us = NEVER
    if cost <= quota.limit then
      local earliest = leases[1]
      for i = 3, count, 2 do
        if leases[i] < earliest then earliest = leases[i] end
      end
      local left_us = earliest - now_us
      local ran_us = quota.period * MICROSECONDS - left_us
      wait_us = math.min(math.max(ran_us, LEAST_RETRY_AFTER_US), left_us)
    end
    return false, state, left > 0 and left or 0, reset_us, wait_us
  end
  if cost == 0 then return true, state, left > 0 and left or 0, reset_us, 0 end
  local period_us = quota.period * MICROSECONDS
  for i = count + 1, count + 2 * cost, 2 do leases[i], leases[i + 1] = now_us + period_us, lease end
  return true, leases, left - cost, period_us, 0
end

-- The leases that run, those among them in a set for a whole period from now; how many numbers that is, how many leases were
-- in the set, and when they end.
local function renew(state, now_us, quota, wanted)
  local leases, count = live(state, now_us, quota)
  local until_us, held = now_us + quota.period * MICROSECONDS, 0
  for i = 1, count, 2 do
    if wanted[leases[i + 1]] then leases[i], held = until_us, held + 1 end
  end
  return leases, count, held, until_us
end

local function settle(state, now_us, quota, _, cost, actual, lease)
  if actual > 0 and cost == 0 then
    local leases, count, held, until_us = renew(state, now_us, quota, {[lease] = true})
    local more = math.min(math.min(actual, quota.limit) - held, MOST_LEASES - count / 2)
    for i = count + 1, count + 2 * more, 2 do leases[i], leases[i + 1] = until_us, lease end
    return leases
  end
  local leases, count = live(state, now_us, quota)
  local kept, size = {}, 0
  for i = 1, count, 2 do
    if leases[i + 1] ~= lease then
      kept[size + 1], kept[size + 2] = leases[i], leases[i + 1]
      size = size + 2
    end
  end
  return kept
end

local function expires(state)
  local last = 0
  for i = 1, #state, 2 do
    if state[i] > last then last = state[i] end
  end
  return last
end

return {admit = admit, settle = settle, expires = expires, renew = renew, live = live, least = 2, most = 40000, step = 2}
