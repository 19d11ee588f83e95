-- Twin of concurrency.py: the same operations in the same order.

local LEAST_RETRY_AFTER_US = MICROSECONDS

local function live(state, now_us, quota)
  local latest = now_us + quota.period * MICROSECONDS
  local leases = {}
  for i = 1, #state, 2 do
    if state[i] > now_us then leases[#leases + 1], leases[#leases + 2] = min(state[i], latest), state[i + 1] end
  end
  return leases
end

local function latest_end(leases)
  local latest = 0
  for i = 1, #leases, 2 do latest = max(latest, leases[i]) end
  return latest
end

local function reset_after(leases, now_us)
  return #leases > 0 and latest_end(leases) - now_us or 0
end

local function admit(state, now_us, quota, cost, lease)
  local leases = live(state, now_us, quota)
  local held = #leases / 2
  local left = max(0, quota.limit - held)
  if cost > quota.limit then return false, state, left, reset_after(leases, now_us), NEVER end
  if cost > 0 and held + cost > quota.limit then
    local earliest = leases[1]
    for i = 3, #leases, 2 do earliest = min(earliest, leases[i]) end
    local left_us = earliest - now_us
    local ran_us = quota.period * MICROSECONDS - left_us
    local wait_us = min(max(ran_us, LEAST_RETRY_AFTER_US), left_us)
    return false, state, left, reset_after(leases, now_us), wait_us
  end
  if cost > 0 then
    for _ = 1, cost do
      leases[#leases + 1], leases[#leases + 2] = now_us + quota.period * MICROSECONDS, lease
    end
    state = leases
  end
  return true, state, max(0, left - cost), reset_after(leases, now_us), 0
end

local function settle(state, now_us, quota, _, _, _, lease)
  local leases, kept = live(state, now_us, quota), {}
  for i = 1, #leases, 2 do
    if leases[i + 1] ~= lease then kept[#kept + 1], kept[#kept + 2] = leases[i], leases[i + 1] end
  end
  return kept
end

local function renew(state, now_us, quota, lease)
  local leases = live(state, now_us, quota)
  for i = 1, #leases, 2 do
    if leases[i + 1] == lease then leases[i] = now_us + quota.period * MICROSECONDS end
  end
  return leases
end

local function expires(state)
  return latest_end(state)
end

return {admit = admit, settle = settle, expires = expires, renew = renew}
