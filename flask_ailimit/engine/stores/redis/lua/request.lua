-- What Python asks, in the layout of packing.py: a head, then so many items, each with the charge it is about.

local REMEMBERED_MS = 10000

local request = ARGV[1]
local now_us, lease, subjects, count, first = struct.unpack('<i8i8I2I2', request)
local marker = KEYS[subjects + 1]
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * MICROSECONDS + time[2]
end

local algorithms, records = {}, {}

local function exact(number)
  if not (number >= 0 and number <= MAX_EXACT) then error('a cost is no whole number from 0 to 2^53 - 1') end
  return number
end

local function record_of(place)
  records[place] = records[place] or read(KEYS[place])
  return records[place]
end

-- The charge that begins at a place: its record, whether it is dry, its cost, bucket, algorithm and quota, and where the
-- rest of the item begins.
local function charge_at(at)
  local place, dry, cost, bucket, number, limit, burst, period, tick_us, cost_scale, leak
  place, dry, cost, bucket, number, limit, burst, period, tick_us, cost_scale, leak, at =
    struct.unpack('<I2Bi8c8Bi8i8i8i8i8i8', request, at)
  local quota = {
    limit = limit, burst = burst, period = period, tick_us = tick_us, cost_scale = cost_scale, leak = leak,
  }
  algorithms[number] = algorithms[number] or twins[number]()
  return record_of(place), dry == 1, exact(cost), bucket, algorithms[number], quota, at
end
