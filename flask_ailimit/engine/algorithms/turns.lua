-- Twin of turns.py: the same operations in the same order. Places are leases, as the slots of concurrency.lua are.

local slots = algorithm_of('concurrency')

-- How many are before a ticket, which comes after all of its class if it has no place; and whether it has one.
local function before(line, count, ticket)
  local ahead = 0
  for i = 2, count, 2 do
    if line[i] == ticket then return (i - 2) / 2, true end
    if ticket % 2 == 1 or line[i] % 2 == 0 then ahead = ahead + 1 end
  end
  return ahead, false
end

local function admit(state, now_us, quota, cost)
  local line, count, last = slots.live(state, now_us, quota)
  local left, ahead, has_place = math.max(0, quota.limit - count / 2), 0, false
  if cost > 0 then ahead, has_place = before(line, count, cost) end
  if ahead > 0 then
    local is_left_out = left == 0 and not has_place
    return false, state, left, last - now_us, is_left_out and NEVER or ahead * MICROSECONDS
  end
  if not has_place then return true, state, left, last - now_us, 0 end
  local rest = {}
  last = now_us
  for i = 3, count, 2 do
    rest[i - 2], rest[i - 1] = line[i], line[i + 1]
    if line[i] > last then last = line[i] end
  end
  return true, rest, math.max(0, quota.limit - #rest / 2), last - now_us, 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual, lease)
  if cost > 0 or actual == 0 then
    return slots.settle(state, now_us, quota, taken_at_us, 1, 0, cost > 0 and cost or lease)
  end
  local line, count, held, until_us = slots.renew(state, now_us, quota, {[lease] = true})
  if held > 0 or count / 2 >= quota.limit then return line end
  local place = 2 * before(line, count, lease) + 1
  table.insert(line, place, lease)
  table.insert(line, place, until_us)
  return line
end

return {admit = admit, settle = settle, expires = slots.expires, renew = slots.renew, least = 2, most = 2000, step = 2}
