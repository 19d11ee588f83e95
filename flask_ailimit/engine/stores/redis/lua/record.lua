-- One subject's counts: a string in the layout of stores/record.py. Numbers are taken out of it only when they are asked
-- for. A table that grows costs the most, so these have room for eight counts from the beginning.

local VERSION = 1
local HEAD_BYTES = 14
local NUMBER_BYTES = 8
local FEW = 12
local NUMBERS_AT_ONCE = 100
local LATEST_SECOND = 4294967295

-- A record: what is stored, and how many counts it has. Of each count: its bucket; where its numbers begin in what is
-- stored, how many they are, and the second it ends; what to write in its place, in the same layout ('' to forget it); and
-- what was asked of it. And the second at which the last of those to write ends, false if there is none.
local function read(key)
  local raw = redis.call('GET', key)
  if not raw or raw:byte() ~= VERSION then raw = '\1' end
  local buckets, starts = {0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}
  local lengths, ends = {0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}
  local size, at, last, length = 0, 2, #raw, 0
  while at <= last do
    size = size + 1
    buckets[size], ends[size], length, at = struct.unpack('<c8I4I2', raw, at)
    lengths[size], starts[size] = length, at
    at = at + length * NUMBER_BYTES
  end
  return {
    raw = raw, size = size, buckets = buckets, starts = starts, lengths = lengths, ends = ends, latest = false,
    changes = {false, false, false, false, false, false, false, false}, asked = {0, 0, 0, 0, 0, 0, 0, 0},
  }
end

-- The number of a bucket's count in a record; of one that isn't stored, a new one.
local function number_of(record, bucket)
  local buckets, size = record.buckets, record.size
  for number = 1, size do
    if buckets[number] == bucket then return number end
  end
  size = size + 1
  record.size = size
  buckets[size], record.lengths[size], record.ends[size], record.asked[size] = bucket, 0, 0, 0
  return size
end

-- The state of a count as it is stored or, if that is wanted, as this script has changed it.
local function state_of(record, number, changed)
  local from, at, length = record.raw, record.starts[number], record.lengths[number]
  changed = changed and record.changes[number]
  if changed then from, at, length = changed, HEAD_BYTES + 1, (#changed - HEAD_BYTES) / NUMBER_BYTES end
  if length <= 0 then return {} end
  if length == 2 then
    local first, second = decode('<i8i8', from, at)
    return {first, second}
  end
  local state = {}
  if length <= NUMBERS_AT_ONCE then
    local format = length <= FEW and ('<i8i8i8i8i8i8i8i8i8i8i8i8'):sub(1, 1 + 2 * length) or '<' .. ('i8'):rep(length)
    state = {decode(format, from, at)}
    state[length + 1] = nil -- Where the next number would begin.
  else
    for i = 1, length do state[i], at = decode('<i8', from, at) end
  end
  return state
end

-- Has a state, which ends at a time in microseconds, written in the place of a count.
local function replace(record, number, state, ends_us)
  local bucket, length, change = record.buckets[number], #state, ''
  local rest = ends_us % MICROSECONDS
  local ends = rest > 0 and (ends_us - rest) / MICROSECONDS + 1 or ends_us / MICROSECONDS
  if ends > LATEST_SECOND then ends = LATEST_SECOND end
  if length == 2 then
    change = encode('<c8I4I2i8i8', bucket, ends, 2, state[1], state[2])
  elseif length <= FEW then
    change = encode(('<c8I4I2i8i8i8i8i8i8i8i8i8i8i8i8'):sub(1, 7 + 2 * length), bucket, ends, length, unpack(state))
  elseif length <= NUMBERS_AT_ONCE then
    change = encode('<c8I4I2' .. ('i8'):rep(length), bucket, ends, length, unpack(state))
  else
    local parts = {encode('<c8I4I2', bucket, ends, length)}
    for i = 1, length do parts[i + 1] = encode('<i8', state[i]) end
    change = table.concat(parts)
  end
  record.changes[number] = change
  if not record.latest or record.latest < ends then record.latest = ends end
end

local function forget(record, number)
  record.changes[number], record.latest = '', record.latest or 0
end

local function write(key, record, now_us)
  local raw, changes, ends, latest = record.raw, record.changes, record.ends, record.latest or 0
  local parts, count = {'\1', '', '', '', '', '', '', '', ''}, 1
  for number = 1, record.size do
    local part = changes[number]
    if not part and ends[number] * MICROSECONDS > now_us then
      local start = record.starts[number]
      part = raw:sub(start - HEAD_BYTES, start + record.lengths[number] * NUMBER_BYTES - 1)
      if latest < ends[number] then latest = ends[number] end
    end
    if part then
      count = count + 1
      parts[count] = part
    end
  end
  local left_us = latest * MICROSECONDS - now_us
  if left_us > 0 then
    redis.call('SET', key, table.concat(parts, '', 1, count), 'PX', math.ceil(left_us / 1000))
  else
    redis.call('DEL', key)
  end
end
