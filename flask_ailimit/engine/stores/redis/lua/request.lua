-- What Python asks, in the layout of packing.py: a head, then so many items, each with the charge it is about.

local CHARGE = '<I2Bi8i8c8Bi8i8i8i8i8i8i8'
local REMEMBERED_MS = '10000'
local TELLS_WINDOWS = 4

local request = ARGV[1]
local now_us, lease, subjects, count, first = decode('<i8i8I2I2', request)
local marker = KEYS[subjects + 1]
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * MICROSECONDS + time[2]
end

local records = {}
for place = 1, subjects do records[place] = read(KEYS[place], now_us) end

-- The quota of the charge that was read last: one table for all of them. Its boundaries are where its windows begin and end
-- around the time by Python's clock.
local quota = {
  limit = 0, burst = 0, ceiling = 0, period = 0, tick_us = 0, cost_scale = 0, leak = 0, tells_windows = false, grants = false, never_ends = false,
  boundaries = {0, 0, 0, 0}, is_beyond = false,
}
local algorithms = {}

-- Whether what is read of other counts is what this script has made of them.
local sees_changes = false

-- What follows a charge whose windows are told: four boundaries, the grants of credit, and the names of the other counts in
-- which it may have been used.
local function windows_at(at, others)
  local b, grants, many = quota.boundaries, nil, nil
  b[1], b[2], b[3], b[4], grants, many, at = decode('<i8i8i8i8I2I2', request, at)
  quota.never_ends = b[1] == 0 and b[2] == 0
  quota.grants = grants > 0 and {}
  for i = 1, grants do
    local grant = {}
    grant[1], grant[2], grant[3], grant[4], at = decode('<i8i8i8i8', request, at)
    quota.grants[i] = grant
  end
  for i = 1, many do
    others[i], at = decode('<c8', request, at)
  end
  return at
end

-- Leaves of the grants what other counts have left of them. Twin of decide.py's _with_credit_left.
local function lessen(record, algorithm, others)
  for _, bucket in ipairs(others) do
    for number = 1, record.size do
      if record.buckets[number] == bucket then
        for _, used in ipairs(algorithm.used_of_grants(state_of(record, number, algorithm, sees_changes))) do
          for _, grant in ipairs(quota.grants) do
            if grant[1] == used[1] then grant[2] = math.max(0, grant[2] - used[2]) end
          end
        end
      end
    end
  end
end

-- The charge that begins at a place: its record, its count's number there, its algorithm, its cost, where the rest of the item
-- begins, whether it is dry, whether it is a shadow, and its floor.
local function charge_at(at)
  local place, flags, cost, floor, bucket, name
  place, flags, cost, floor, bucket, name, quota.limit, quota.burst, quota.ceiling, quota.period, quota.tick_us, quota.cost_scale,
    quota.leak, at = decode(CHARGE, request, at)
  if not (cost >= 0 and cost <= MAX_EXACT and floor >= 0 and floor <= MAX_EXACT) then
    error('a cost or a floor is no whole number from 0 to 2^53 - 1')
  end
  quota.tells_windows = flags >= TELLS_WINDOWS
  local others = quota.tells_windows and {}
  if others then at = windows_at(at, others) end
  local record, algorithm = records[place], algorithms[name]
  if not algorithm then
    algorithm = algorithm_of(name)
    algorithms[name] = algorithm
  end
  if others and others[1] then lessen(record, algorithm, others) end
  return record, number_of(record, bucket), algorithm, cost, at, flags % 2 == 1, flags % TELLS_WINDOWS >= 2, floor
end
