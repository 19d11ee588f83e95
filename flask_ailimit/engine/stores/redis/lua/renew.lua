-- Twin of decide.py's renew: each item is a count, and the leases that are held of it. Doing it twice does no harm, so it has
-- no marker.

local at = first
for _ = 1, count do
  local record, number, algorithm, _, leases
  record, number, algorithm, _, at = charge_at(at)
  leases, at = decode('<I4', request, at)
  local wanted, lease = {}, 0
  for _ = 1, leases do
    lease, at = decode('<i8', request, at)
    wanted[lease] = true
  end
  local state = state_of(record, number, algorithm, true)
  if state[1] and algorithm.renew then
    state = algorithm.renew(state, now_us, quota, wanted)
    if state[1] then
      replace(record, number, state, algorithm.expires(state, quota))
    else
      forget(record, number)
    end
  end
end
for place = 1, subjects do write(KEYS[place], records[place], now_us) end
return replaced and {count, unpack(replaced)} or count
