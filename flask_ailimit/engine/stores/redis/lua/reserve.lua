-- Twin of decide.py's decide. The marker remembers for a while that the decision was made, and when: the same request,
-- sent again because its reply was lost, takes nothing and is told what is left now.

local ASKS_ONLY = -1

local decided_at = marker and redis.call('GET', marker)
local is_new = not decided_at
local taken_at_us = is_new and now_us or struct.unpack('<i8', decided_at)

-- For each charge four numbers: whether it fits, what is left, and the waits until all is and until it fits.
-- It is made with room for six charges, because growing it costs more.
local answers = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
local asked = {}
local all_allowed = true
local at = first

for i = 1, 4 * count, 4 do
  local record, dry, cost, bucket, algorithm, quota
  record, dry, cost, bucket, algorithm, quota, at = charge_at(at)
  if not is_new then cost = 0 end
  local state = stored_state(record, bucket)
  asked[record] = asked[record] or {}
  local before = asked[record][bucket] or 0
  local allowed, after, left, reset_us, retry_us = algorithm.admit(state, now_us, quota, before + cost, lease)
  if dry then
    local _
    _, _, left, reset_us = algorithm.admit(state, now_us, quota, before, lease)
  else
    asked[record][bucket] = before + cost
    if after ~= state then replace(record, bucket, algorithm, quota, after) end
  end
  allowed = allowed or cost == 0
  all_allowed = all_allowed and allowed
  answers[i], answers[i + 1], answers[i + 2], answers[i + 3] = allowed and 1 or 0, left, reset_us, retry_us
end

if not all_allowed then
  for _, record in pairs(records) do undo_changes(record) end
  at = first
  for i = 1, 4 * count, 4 do
    local record, bucket, algorithm, quota, _
    record, _, _, bucket, algorithm, quota, at = charge_at(at)
    local state = stored_state(record, bucket)
    _, _, answers[i + 1], answers[i + 2] = algorithm.admit(state, now_us, quota, 0, lease)
    if answers[i] == 1 then answers[i + 3] = 0 end
    local present = algorithm.settle(state, now_us, quota, now_us, 0, 0, -1)
    if present[1] and algorithm.expires(present, quota) < algorithm.expires(state, quota) then
      replace(record, bucket, algorithm, quota, present)
    end
  end
end

if marker and is_new and all_allowed then redis.call('SET', marker, struct.pack('<i8', now_us), 'PX', REMEMBERED_MS) end
for _, record in pairs(records) do
  if lease ~= ASKS_ONLY and next(record.changes) then write(record, now_us) end
end
return struct.pack('<i8' .. ('Bi8i8i8'):rep(count), taken_at_us, unpack(answers, 1, 4 * count))
