-- Twin of decide.py's renew. Doing it twice does no harm, so it has no marker.

local at = first
for _ = 1, count do
  local record, number, algorithm, _, _, rest = charge_at(at)
  local held
  held, at = decode('<i8', request, rest)
  local state = state_of(record, number, true)
  if state[1] and algorithm.renew then
    state = algorithm.renew(state, now_us, quota, held)
    if state[1] then
      replace(record, number, state, algorithm.expires(state, quota))
    else
      forget(record, number)
    end
  end
end
for place = 1, subjects do write(KEYS[place], records[place], now_us) end
return count
