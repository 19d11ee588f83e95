-- One subject's counts: a string in the layout of stores/record.py. Numbers are taken out of it only when they are asked
-- for. A table that grows costs the most, so these have room for eight counts from the beginning.

local VERSION = 1
local HEAD_BYTES = 14
local NUMBER_BYTES = 8
local FEW = 13
local NUMBERS_AT_ONCE = 100
local MOST_BYTES = 4194304

-- The keys of records that could not be read, wholly or in part, and were replaced: they come behind the answer, if there
-- are any.
local replaced = false

-- A record: what is stored, and how many counts it has. Of each count: its bucket; where its numbers begin in what is
-- stored, how many they are, and the second it ends (0 if it isn't stored); what to write in its place, in the same layout
-- ('' to forget it); what was asked of it; and whether it needs a place in the record. The second at which the last of those
-- to write ends, false if there is none; and how long to wait for a place, 0 if there is one.
-- What is no record, or not a whole one, is taken for an empty one, and is replaced whatever is decided: it is none of ours,
-- so it may have no end. An empty record is never written.
local function read(key, now_us)
  local raw, strange = redis.pcall('GET', key), false
  if type(raw) == 'table' then
    if not raw.err:find('WRONGTYPE', 1, true) then redis.call('GET', key) end
    raw, strange = '', true
  end
  if not raw then
    raw = '\1'
  elseif raw:byte() ~= VERSION or #raw == 1 or #raw > MOST_BYTES then
    raw, strange = '\1', true
  end
  local buckets, starts = {0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}
  local lengths, ends = {0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}
  local size, at, last, length = 0, 2, #raw, 0
  while at <= last - HEAD_BYTES + 1 do
    size = size + 1
    buckets[size], ends[size], length, at = struct.unpack('<c8I4I2', raw, at)
    lengths[size], starts[size] = length, at
    at = at + length * NUMBER_BYTES
  end
  if at ~= last + 1 then raw, size, strange = '\1', 0, true end
  return {
    raw = raw, strange = strange, size = size, buckets = buckets, starts = starts, lengths = lengths, ends = ends, latest = false,
    changes = {false, false, false, false, false, false, false, false}, asked = {0, 0, 0, 0, 0, 0, 0, 0},
    needed = {false, false, false, false, false, false, false, false}, wait_us = 0, now_us = now_us,
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
  buckets[size], record.lengths[size], record.ends[size] = bucket, 0, 0
  return size
end

-- The state of a count as it is stored or, if that is wanted, as this script has changed it. A count that has ended is as if
-- never used. Numbers that its algorithm can't have written are none: that count starts afresh.
local function state_of(record, number, algorithm, changed)
  local from, at, length = record.raw, record.starts[number], record.lengths[number]
  changed = changed and record.changes[number]
  if changed then
    from, at, length = changed, HEAD_BYTES + 1, (#changed - HEAD_BYTES) / NUMBER_BYTES
  elseif record.ends[number] * MICROSECONDS <= record.now_us then
    return {}
  end
  if length <= 0 then return {} end
  local sound = length >= algorithm.least and length <= algorithm.most and (length - algorithm.least) % algorithm.step == 0
  local state = {}
  if sound and length == 2 then
    local first, second = decode('<i8i8', from, at)
    state = {first, second}
    sound = first >= 0 and second >= 0 and first <= MAX_EXACT and second <= MAX_EXACT
  elseif sound and length <= NUMBERS_AT_ONCE then
    local format = length <= FEW and ('<i8i8i8i8i8i8i8i8i8i8i8i8i8'):sub(1, 1 + 2 * length) or '<' .. ('i8'):rep(length)
    state = {decode(format, from, at)}
    state[length + 1] = nil -- Where the next number would begin.
    sound = math.min(unpack(state)) >= 0 and math.max(unpack(state)) <= MAX_EXACT
  elseif sound then
    for i = 1, length do
      local number
      number, at = decode('<i8', from, at)
      if number < 0 or number > MAX_EXACT then sound = false end
      state[i] = number
    end
  end
  if sound and (not algorithm.is_sound or algorithm.is_sound(state)) then return state end
  record.lengths[number], record.ends[number], record.strange = 0, 0, true
  return {}
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
    change = encode(('<c8I4I2i8i8i8i8i8i8i8i8i8i8i8i8i8'):sub(1, 7 + 2 * length), bucket, ends, length, unpack(state))
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
  if record.strange then
    replaced = replaced or {}
    replaced[#replaced + 1] = key
  end
  local left_us = latest * MICROSECONDS - now_us
  local text = table.concat(parts, '', 1, count)
  if left_us > 0 and #text > 1 then
    redis.call('SET', key, text, 'PX', math.ceil(left_us / 1000))
  else
    redis.call('DEL', key)
  end
end
