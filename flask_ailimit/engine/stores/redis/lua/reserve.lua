-- Twin of decide.py's decide. The marker remembers for a while that the decision was made, and when: the same request,
-- sent again because its reply was lost, takes nothing and is told what is left now. If a shadow charge was not taken, the
-- marker also says of each charge that isn't dry whether it was.

local ASKS_ONLY = -1
local MANY = 8
local MOST_COUNTS = 512
local MOST_WITH_TRIED = 256
local TIME_BYTES = 8
local TAKEN, NOT_TAKEN = '1', '0'

-- How long until a record has room for all counts that are needed: 0 if it has, or if none of them is new, NEVER if it never
-- will.
local function wait_for_room(record, now_us)
  local ends, size, needed, is_any_new = {}, 0, 0, false
  for number = 1, record.size do
    local lives = record.ends[number] * MICROSECONDS > now_us
    if record.needed[number] then
      needed = needed + 1
      is_any_new = is_any_new or not lives
    elseif lives then
      size = size + 1
      ends[size] = record.ends[number]
    end
  end
  local lacking = size + needed - MOST_COUNTS
  if lacking <= 0 or not is_any_new then return 0 end
  if lacking > size then return NEVER end
  if lacking == 1 then return math.min(unpack(ends)) * MICROSECONDS - now_us end
  table.sort(ends)
  return ends[lacking] * MICROSECONDS - now_us
end

-- Whether a count that is only tried is in the record, or finds a place there.
local function has_place(record, number, now_us)
  if record.size <= MOST_WITH_TRIED or record.ends[number] * MICROSECONDS > now_us then return true end
  local places = 0
  for other = 1, record.size do
    if other == number or record.needed[other] or record.ends[other] * MICROSECONDS > now_us then places = places + 1 end
  end
  return places <= MOST_WITH_TRIED
end

-- For each charge four numbers: whether it fits, what is left, and the waits until all is and until it fits.
-- It is made with room for six charges, because growing it costs more.
local answers = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
-- Of each budget five numbers more: what is spent, what is reserved, the credit, what is reserved of it, and the window's end.
local spendings = false

-- Notes how a budget stands, and answers the wait until its window ends: until it is reset, although credit stays used.
local function stands(now_us, spent, reserved, credit, reserved_credit, ends_us)
  spendings = spendings or {}
  local size = #spendings
  spendings[size + 1], spendings[size + 2], spendings[size + 3] = spent, reserved, credit
  spendings[size + 4], spendings[size + 5] = reserved_credit, ends_us
  return (spent ~= 0 or reserved ~= 0) and ends_us - now_us or 0
end

local decided, is_new, all_allowed, all_taken, marks = nil, true, true, true, {}

repeat
  local at, round_is_new, place_of_mark = first, is_new, 0
  spendings = false
  for i = 1, 4 * count, 4 do
    local record, number, algorithm, cost, dry, shadow, floor
    record, number, algorithm, cost, at, dry, shadow, floor = charge_at(at)
    if not is_new then cost = 0 end
    local state, before = state_of(record, number, algorithm), record.asked[number] or 0
    local allowed, after, left, reset_us, retry_us = algorithm.admit(state, now_us, quota, before + cost, lease)
    if floor > 0 and is_new then
      local kept = math.min(floor, math.max(0, quota.burst - before - cost))
      local fits, as_it_is, left_now, reset_now_us, wait_us = algorithm.admit(state, now_us, quota, before + cost + kept, lease)
      if not fits then allowed, after, left, reset_us, retry_us = false, as_it_is, left_now, reset_now_us, wait_us end
    end
    if not dry then place_of_mark = place_of_mark + 1 end
    -- What was taken before is answered as it was then.
    if not is_new then
      allowed = dry or decided:sub(TIME_BYTES + place_of_mark, TIME_BYTES + place_of_mark) ~= NOT_TAKEN
      retry_us = 0
    elseif shadow and allowed and not has_place(record, number, now_us) then
      allowed, retry_us = false, NEVER
    end
    local seen = allowed and after or state
    if shadow and not allowed then
      all_taken = all_taken and dry
    else
      if after ~= state or not allowed then record.needed[number] = true end
      if dry then
        local _
        _, seen, left, reset_us = algorithm.admit(state, now_us, quota, before, lease)
      else
        record.asked[number] = before + cost
        if after ~= state then replace(record, number, after, now_us + reset_us) end
      end
      if not allowed then all_allowed = false end
    end
    if algorithm.spending then
      reset_us = stands(now_us, algorithm.spending(seen, now_us, quota))
    end
    if not dry then marks[place_of_mark] = allowed and TAKEN or NOT_TAKEN end
    if floor > 0 then left = math.max(0, left - floor) end
    answers[i], answers[i + 1], answers[i + 2], answers[i + 3] = allowed and 1 or 0, left, reset_us, retry_us
  end
  if quota.is_beyond then return -now_us end
  for place = 1, subjects do
    local record = records[place]
    if record.size > MOST_COUNTS then
      record.wait_us = wait_for_room(record, now_us)
      if record.wait_us ~= 0 then all_allowed = false end
    end
  end
  if marker and is_new then
    if all_allowed then
      local mark = encode('<i8', now_us) .. (all_taken and '' or table.concat(marks))
      is_new = redis.call('SET', marker, mark, 'PX', REMEMBERED_MS, 'NX')
    else
      is_new = not redis.call('GET', marker)
    end
    decided = not is_new and redis.call('GET', marker)
  end
  if not is_new or not all_allowed then
    for place = 1, subjects do
      local record = records[place]
      record.latest, record.changes, record.asked = false, {}, {}
    end
  end
until is_new or not round_is_new

if is_new and not all_allowed then
  local at = first
  spendings = false
  for i = 1, 4 * count, 4 do
    local record, number, algorithm, _, floor
    record, number, algorithm, _, at, _, _, floor = charge_at(at)
    local state, present = state_of(record, number, algorithm), nil
    _, present, answers[i + 1], answers[i + 2] = algorithm.admit(state, now_us, quota, 0, lease)
    if present ~= state then
      replace(record, number, present, algorithm.expires(present, quota))
    else
      present = algorithm.settle(state, now_us, quota, now_us, 0, 0, -1)
      local ends_us = present[1] and algorithm.expires(present, quota)
      local noted_us = math.min(ends_us or 0, LATEST_SECOND * MICROSECONDS)
      if ends_us and (ends_us < algorithm.expires(state, quota) or noted_us > record.ends[number] * MICROSECONDS) then
        replace(record, number, present, ends_us)
      end
    end
    if algorithm.spending then
      answers[i + 2] = stands(now_us, algorithm.spending(state, now_us, quota))
    end
    if floor > 0 then answers[i + 1] = math.max(0, answers[i + 1] - floor) end
    if answers[i] == 1 then answers[i + 3] = 0 end
    if answers[i] == 1 and record.wait_us ~= 0 and record.needed[number] and record.ends[number] * MICROSECONDS <= now_us then
      answers[i], answers[i + 1], answers[i + 2], answers[i + 3] = 0, 0, math.max(record.wait_us, 0), record.wait_us
    end
  end
end

for place = 1, subjects do
  local record = records[place]
  if lease ~= ASKS_ONLY and (record.latest or record.strange) then write(KEYS[place], record, now_us) end
end

local format = count <= MANY and ('<i8Bi8i8i8Bi8i8i8Bi8i8i8Bi8i8i8Bi8i8i8Bi8i8i8Bi8i8i8Bi8i8i8'):sub(1, 3 + 7 * count)
  or '<i8' .. ('Bi8i8i8'):rep(count)
local taken_at_us = is_new and now_us or decode('<i8', decided)
local answer = encode(format, taken_at_us, unpack(answers, 1, 4 * count))
if spendings then answer = answer .. encode('<' .. ('i8'):rep(#spendings), unpack(spendings)) end
return replaced and {answer, unpack(replaced)} or answer
