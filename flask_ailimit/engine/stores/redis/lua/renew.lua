-- Twin of decide.py's renew. Doing it twice does no harm, so it has no marker.

local at = first
for _ = 1, count do
  local record, _, _, bucket, algorithm, quota, rest = charge_at(at)
  local held
  held, at = struct.unpack('<i8', request, rest)
  local state = changed_state(record, bucket)
  if state[1] and algorithm.renew then
    replace(record, bucket, algorithm, quota, algorithm.renew(state, now_us, quota, held))
  end
end
for _, record in pairs(records) do write(record, now_us) end
return count
