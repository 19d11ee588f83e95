-- One subject's counts: a string in the layout of stores/record.py. A count is decoded when it is asked for; the others
-- are written back as they are.

local VERSION = '\1'
local HEAD = '<c8I4I2'
local NUMBERS_AT_ONCE = 100

local function numbers(raw)
  local state = {}
  local count = #raw / 8
  for done = 0, count - 1, NUMBERS_AT_ONCE do
    local some = min(NUMBERS_AT_ONCE, count - done)
    local unpacked = {struct.unpack('<' .. string.rep('i8', some), raw, done * 8 + 1)}
    for i = 1, some do state[done + i] = unpacked[i] end
  end
  return state
end

local function bytes(state)
  local parts = {}
  for first = 1, #state, NUMBERS_AT_ONCE do
    local last = min(first + NUMBERS_AT_ONCE - 1, #state)
    parts[#parts + 1] = struct.pack('<' .. string.rep('i8', last - first + 1), unpack(state, first, last))
  end
  return table.concat(parts)
end

local function read(key)
  local raw = redis.call('GET', key)
  local record = {}
  if not raw or raw:sub(1, 1) ~= VERSION then return record end
  local at = 2
  while at <= #raw do
    local bucket, expires, count, body = struct.unpack(HEAD, raw, at)
    at = body + count * 8
    record[bucket] = {expires = expires, raw = raw:sub(body, at - 1)}
  end
  return record
end

local function state_of(record, bucket)
  local kept = record[bucket]
  if not kept then return {} end
  kept.state = kept.state or numbers(kept.raw)
  return kept.state
end

local function replace(record, bucket, algorithm, quota, state)
  record[bucket] = state[1] and {
    expires = ceil_div(algorithm.expires(state, quota), MICROSECONDS),
    raw = bytes(state),
    state = state,
  } or nil
end

local function write(key, record, now_us)
  local parts, latest = {VERSION}, 0
  for bucket, kept in pairs(record) do
    if kept.expires * MICROSECONDS > now_us then
      latest = max(latest, kept.expires)
      parts[#parts + 1] = struct.pack(HEAD, bucket, kept.expires, #kept.raw / 8) .. kept.raw
    end
  end
  if latest == 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, table.concat(parts), 'PX', exact_text(ceil_div(latest * MICROSECONDS - now_us, 1000)))
  end
end
