-- Forgets a subject. Answers how many counts it had that had not ended: the layout is that of record.lua, and what has one
-- number alone is a notice about a count. What is no such record is deleted too, and had none.

local HEAD_BYTES, NUMBER_BYTES, MICROSECONDS = 14, 8, 1000000

local raw, now_us, counts = redis.pcall('GET', KEYS[1]), tonumber(ARGV[1] or '0'), 0
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * MICROSECONDS + time[2]
end
if type(raw) == 'string' and raw:byte() == 1 then
  local at, last = 2, #raw
  while at <= last - HEAD_BYTES + 1 do
    local ends, length, behind = struct.unpack('<I4I2', raw, at + 8)
    if ends * MICROSECONDS > now_us and length ~= 1 then counts = counts + 1 end
    at = behind + length * NUMBER_BYTES
  end
  if at ~= last + 1 then counts = 0 end
end
redis.call('DEL', KEYS[1])
return counts
