-- Twin of decide.py's renew. Doing it twice does no harm, so it has no marker.

local changed = {}
for _ = 1, count do
  local charge = next_charge()
  local held = next_number()
  local record = record_of(charge.key)
  if record[charge.bucket] and charge.algorithm.renew then
    local renewed = charge.algorithm.renew(state_of(record, charge.bucket), now_us, charge.quota, held)
    replace(record, charge.bucket, charge.algorithm, charge.quota, renewed)
    changed[charge.key] = true
  end
end
for key in pairs(changed) do write(key, records[key], now_us) end
return count
