-- Twin of decide.py's decide. The marker remembers for a while that the decision was made, and when: the same request,
-- sent again because its reply was lost, takes nothing and is told what is left now.

local taken_at_us = now_us
local is_new = not marker or redis.call('SET', marker, exact_text(now_us), 'NX', 'PX', REMEMBERED_MS)
if not is_new then taken_at_us = tonumber(redis.call('GET', marker)) end

local charges, verdicts, asked, taken = {}, {}, {}, {}
local all_allowed = true

for i = 1, count do
  local charge = next_charge()
  if not is_new then charge.cost = 0 end
  local record = record_of(charge.key)
  local state = state_of(record, charge.bucket)
  local count_name = charge.key .. charge.bucket
  local before = asked[count_name] or 0
  local admit = charge.algorithm.admit
  local allowed, after, left, reset_us, retry_us = admit(state, now_us, charge.quota, before + charge.cost, lease)
  local _
  if charge.dry then
    _, _, left, reset_us = admit(state, now_us, charge.quota, before, lease)
  else
    asked[count_name] = before + charge.cost
    if after ~= state then
      taken[charge.key] = taken[charge.key] or {}
      taken[charge.key][charge.bucket] = {charge, after}
    end
  end
  allowed = allowed or charge.cost == 0
  all_allowed = all_allowed and allowed
  charges[i] = charge
  verdicts[i] = {allowed, left, reset_us, retry_us}
end

if all_allowed then
  for key, counts in pairs(taken) do
    for bucket, change in pairs(counts) do
      replace(records[key], bucket, change[1].algorithm, change[1].quota, change[2])
    end
    write(key, records[key], now_us)
  end
else
  if marker then redis.call('DEL', marker) end
  local from_the_future = {}
  for i, charge in ipairs(charges) do
    local algorithm, quota, verdict = charge.algorithm, charge.quota, verdicts[i]
    local state = state_of(records[charge.key], charge.bucket)
    local _, _, left, reset_us = algorithm.admit(state, now_us, quota, 0, lease)
    verdicts[i] = {verdict[1], left, reset_us, verdict[1] and 0 or verdict[4]}
  end
  for _, charge in ipairs(charges) do
    local algorithm, quota, record = charge.algorithm, charge.quota, records[charge.key]
    local state = state_of(record, charge.bucket)
    local present = algorithm.settle(state, now_us, quota, now_us, 0, 0, -1)
    if present[1] and algorithm.expires(present, quota) < algorithm.expires(state, quota) then
      replace(record, charge.bucket, algorithm, quota, present)
      from_the_future[charge.key] = record
    end
  end
  for key, record in pairs(from_the_future) do write(key, record, now_us) end
end

local parts = {struct.pack('<i8', taken_at_us)}
for i, verdict in ipairs(verdicts) do
  parts[i + 1] = struct.pack('<Bi8i8i8', verdict[1] and 1 or 0, verdict[2], verdict[3], verdict[4])
end
return table.concat(parts)
