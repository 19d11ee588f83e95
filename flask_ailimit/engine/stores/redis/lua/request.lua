-- What Python asks, in the layout of wire.py: a head, then so many items, each with the charge it is about.

local REMEMBERED_MS = 10000

local CHARGE = '<I2Bi8c8Bi8i8i8i8i8i8'

local head = ARGV[1]
local now_us, lease, subjects, count, at = struct.unpack('<i8i8I2I2', head)
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * MICROSECONDS + time[2]
end
local marker = KEYS[subjects + 1]

local function exact(number)
  if not (number >= 0 and number <= MAX_EXACT) then error('a cost is no whole number from 0 to 2^53 - 1') end
  return number
end

local algorithms = {}

local function algorithm_of(number)
  algorithms[number] = algorithms[number] or twins[number]()
  return algorithms[number]
end

local function next_charge()
  local key, dry, cost, bucket, algorithm, limit, burst, period, tick_us, cost_scale, leak
  key, dry, cost, bucket, algorithm, limit, burst, period, tick_us, cost_scale, leak, at = struct.unpack(CHARGE, head, at)
  return {
    key = KEYS[key], bucket = bucket, algorithm = algorithm_of(algorithm), dry = dry == 1, cost = exact(cost),
    quota = {
      limit = limit, burst = burst, period = period, tick_us = tick_us, cost_scale = cost_scale, leak = leak,
    },
  }
end

local function next_number()
  local number
  number, at = struct.unpack('<i8', head, at)
  return number
end

local records = {}

local function record_of(key)
  records[key] = records[key] or read(key)
  return records[key]
end
