-- One subject's counts: a string in the layout of stores/record.py. Numbers are taken out of it only when they are asked
-- for: the tables and strings that a script makes cost the server more than its arithmetic.

local VERSION = '\1'
local HEAD_BYTES = 14
local NUMBER_BYTES = 8
local NUMBERS_AT_ONCE = 100
local LATEST_SECOND = 4294967295

local numbers_formats, count_formats = {}, {}

local function numbers_format(count)
  numbers_formats[count] = numbers_formats[count] or '<' .. ('i8'):rep(count)
  return numbers_formats[count]
end

local function count_format(count)
  count_formats[count] = count_formats[count] or '<c8I4I2' .. ('i8'):rep(count)
  return count_formats[count]
end

-- A record: its key, what is stored there, and where in it each count begins; the counts to write in their place in the
-- same layout ('' to forget one), and the second at which the last of these ends.
local function read(key)
  local raw = redis.call('GET', key)
  if not raw or raw:sub(1, 1) ~= VERSION then raw = VERSION end
  local places, at, size = {}, 2, #raw
  while at <= size do
    local bucket, _, count, numbers_at = struct.unpack('<c8I4I2', raw, at)
    places[bucket] = at
    at = numbers_at + count * NUMBER_BYTES
  end
  return {key = key, raw = raw, places = places, changes = {}, latest = 0}
end

local function unpacked(raw, place)
  local count, at = struct.unpack('<I2', raw, place + HEAD_BYTES - 2)
  if count <= NUMBERS_AT_ONCE then
    local state = {struct.unpack(numbers_format(count), raw, at)}
    state[count + 1] = nil -- Where the next number would begin.
    return state
  end
  local state = {}
  for i = 1, count do state[i], at = struct.unpack('<i8', raw, at) end
  return state
end

-- The state of a count as it is stored, and as this script has changed it.
local function stored_state(record, bucket)
  local place = record.places[bucket]
  return place and unpacked(record.raw, place) or {}
end

local function changed_state(record, bucket)
  local change = record.changes[bucket]
  if not change then return stored_state(record, bucket) end
  return change ~= '' and unpacked(change, 1) or {}
end

local function packed(bucket, ends, state)
  local count = #state
  if count <= NUMBERS_AT_ONCE then return struct.pack(count_format(count), bucket, ends, count, unpack(state)) end
  local parts = {struct.pack('<c8I4I2', bucket, ends, count)}
  for i = 1, count do parts[i + 1] = struct.pack('<i8', state[i]) end
  return table.concat(parts)
end

local function replace(record, bucket, algorithm, quota, state)
  if not state[1] then
    record.changes[bucket] = ''
    return
  end
  local ends = min(ceil_div(algorithm.expires(state, quota), MICROSECONDS), LATEST_SECOND)
  record.changes[bucket] = packed(bucket, ends, state)
  record.latest = max(record.latest, ends)
end

local function undo_changes(record)
  record.changes, record.latest = {}, 0
end

local function write(record, now_us)
  local raw, changes, latest = record.raw, record.changes, record.latest
  local parts, size = {VERSION}, 1
  for bucket, place in pairs(record.places) do
    if not changes[bucket] then
      local ends, count = struct.unpack('<I4I2', raw, place + #bucket)
      if ends * MICROSECONDS > now_us then
        size, latest = size + 1, max(latest, ends)
        parts[size] = raw:sub(place, place + HEAD_BYTES + count * NUMBER_BYTES - 1)
      end
    end
  end
  for _, change in pairs(changes) do
    size = size + 1
    parts[size] = change
  end
  local left_us = latest * MICROSECONDS - now_us
  if left_us > 0 then
    redis.call('SET', record.key, table.concat(parts), 'PX', ceil_div(left_us, 1000))
  else
    redis.call('DEL', record.key)
  end
end
