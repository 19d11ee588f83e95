-- Twin of budget.py: the same operations in the same order.

local SLOT_US = 300000000
local WAIT_US = 5000000
local MOST_ENTRIES = 512
local DAY = 86400
local WITHOUT_CREDIT = 6

local function used_of(books, id)
  for _, used in ipairs(books.used) do
    if used[1] == id then return used end
  end
end

local function left_of(books, grant)
  local used = used_of(books, grant[1])
  return used and math.max(0, grant[2] - used[3]) or grant[2]
end

local function is_in_force(grant, now)
  return grant[3] <= now and now < grant[4]
end

local function burn(books, amount, lease)
  local taken, now = 0, math.floor(books.now_us / MICROSECONDS)
  for _, grant in ipairs(books.quota.grants or {}) do
    if is_in_force(grant, now) then
      local part = math.min(amount - taken, left_of(books, grant))
      if part > 0 then
        taken = taken + part
        local used = used_of(books, grant[1])
        if not used then
          used = {grant[1], grant[4], 0}
          table.insert(books.used, used)
        end
        used[3] = used[3] + part
        if lease then table.insert(books.uses, {lease, now, grant[1], part}) end
      end
    end
  end
  return taken
end

local function credit_of(books)
  local sum, now = 0, math.floor(books.now_us / MICROSECONDS)
  for _, grant in ipairs(books.quota.grants or {}) do
    if is_in_force(grant, now) then sum = math.min(sum + left_of(books, grant), MAX_EXACT) end
  end
  return sum - books.debt
end

local function pay(books)
  local owed = books.debt
  if owed > 0 and books.quota.never_ends then
    local paid = math.min(owed, math.max(0, books.limit - books.count))
    books.count, books.debt = books.count + paid, books.debt - paid
  end
  if books.debt > 0 then books.debt = books.debt - burn(books, books.debt) end
  return books.debt < owed
end

local function read_credit(books, state)
  local now, uses_at, ends_now = math.floor(books.now_us / MICROSECONDS), 9 + 3 * state[8], {}
  for _, grant in ipairs(books.quota.grants or {}) do ends_now[grant[1]] = grant[4] end
  books.debt = state[7]
  for at = 9, uses_at - 1, 3 do
    local ends = math.max(state[at + 1], ends_now[state[at]] or 0)
    if ends > now then table.insert(books.used, {state[at], ends, state[at + 2]}) end
  end
  for at = uses_at, #state, 4 do
    if state[at + 1] + DAY > now then
      table.insert(books.uses, {state[at], state[at + 1], state[at + 2], state[at + 3]})
    end
  end
  books.is_changed = pay(books)
end

local function books_of(state, now_us, quota)
  local books = {
    now_us = now_us, quota = quota, limit = quota.limit, slot = math.floor(now_us / SLOT_US), began = now_us,
    count = 0, before = 0, held = 0, debt = 0, used = {}, uses = {}, is_changed = false,
  }
  if state[1] and state[1] <= now_us and now_us < state[2] then
    books.began, books.ends = state[1], state[2]
  else
    books.ends = window_end_us(quota, now_us)
  end
  if not state[1] then return books end
  if now_us < state[2] then
    books.count = state[3]
    local passed = books.slot - state[6]
    if passed == 0 then
      books.before, books.held = state[4], state[5]
    elseif passed == 1 then
      books.before = state[5]
    elseif passed < 0 then
      books.held = state[4] + state[5]
    end
  end
  if #state > WITHOUT_CREDIT then read_credit(books, state) end
  return books
end

local function end_holding(books, taken_at_us, amount)
  local slot = math.floor(taken_at_us / SLOT_US)
  if slot < books.slot - 1 then return end
  local of_before = slot < books.slot and math.min(books.before, amount) or 0
  local of_held = math.min(books.held, amount - of_before)
  of_before = of_before + math.min(books.before - of_before, amount - of_before - of_held)
  books.before, books.held = books.before - of_before, books.held - of_held
end

local function uses_of(books, lease)
  local sum = 0
  for _, use in ipairs(books.uses) do
    if use[1] == lease then sum = math.min(sum + use[4], MAX_EXACT) end
  end
  return sum
end

local function end_uses(books, lease, amount, refund)
  for place = #books.uses, 1, -1 do
    local use = books.uses[place]
    if use[1] == lease and amount > 0 then
      local ended = math.min(use[4], amount)
      local back = math.min(ended, refund)
      amount, refund = amount - ended, refund - back
      local used = used_of(books, use[3])
      if used then used[3] = math.max(0, used[3] - back) end
      use[4] = use[4] - ended
    end
  end
  local uses = {}
  for _, use in ipairs(books.uses) do
    if use[4] > 0 then table.insert(uses, use) end
  end
  books.uses = uses
end

local function held_of_credit(books)
  local sum, since = 0, (math.floor(books.now_us / SLOT_US) - 1) * SLOT_US / MICROSECONDS
  for _, use in ipairs(books.uses) do
    if use[2] >= since then sum = math.min(sum + use[4], MAX_EXACT) end
  end
  return sum
end

local function has_use(books, id)
  for _, use in ipairs(books.uses) do
    if use[3] == id then return true end
  end
  return false
end

local function state_in(books)
  local state = {books.began, books.ends, books.count, books.before, books.held, books.slot, books.debt, 0}
  for _, used in ipairs(books.used) do
    if used[3] > 0 or has_use(books, used[1]) then
      state[8] = state[8] + 1
      for i = 1, 3 do table.insert(state, used[i]) end
    end
  end
  for _, use in ipairs(books.uses) do
    for i = 1, 4 do table.insert(state, use[i]) end
  end
  if state[8] > 0 or #books.uses > 0 or books.debt > 0 then return state end
  if books.count == 0 then return {} end
  state[7], state[8] = nil, nil
  return state
end

local function expires(state)
  if #state == WITHOUT_CREDIT then return state[2] end
  if state[7] > 0 then return LATEST_SECOND * MICROSECONDS end
  local last = 0
  for at = 10, 8 + 3 * state[8], 3 do last = math.max(last, state[at]) end
  return math.max(state[3] > 0 and state[2] or 0, last * MICROSECONDS)
end

local function reset_us_of(books)
  local state = state_in(books)
  return state[1] and math.max(0, expires(state) - books.now_us) or 0
end

local function certain_wait_us(books, cost)
  local moments, grants, never_ends = {}, books.quota.grants or {}, books.quota.never_ends
  if not never_ends then table.insert(moments, books.ends) end
  for _, grant in ipairs(grants) do
    if grant[3] * MICROSECONDS > books.now_us then table.insert(moments, grant[3] * MICROSECONDS) end
  end
  table.sort(moments)
  for _, moment_us in ipairs(moments) do
    local room = moment_us >= books.ends and books.limit or math.max(0, books.limit - books.count)
    local credit = 0
    for _, grant in ipairs(grants) do
      if grant[3] * MICROSECONDS <= moment_us and moment_us < grant[4] * MICROSECONDS then
        credit = math.min(credit + left_of(books, grant), MAX_EXACT)
      end
    end
    if cost <= room + math.max(0, credit - books.debt) then return moment_us - books.now_us end
  end
  return NEVER
end

local function wait_us_for(books, cost)
  cost = math.max(cost, 1)
  local unspent = math.max(0, books.limit - books.count + books.before + books.held)
  local certain = certain_wait_us(books, cost)
  if cost <= unspent + math.max(0, credit_of(books) + held_of_credit(books)) then
    return certain == NEVER and WAIT_US or math.min(WAIT_US, certain)
  end
  return certain
end

local function admit(state, now_us, quota, cost, lease)
  local books = books_of(state, now_us, quota)
  local room = math.max(0, books.limit - books.count)
  local credit = (quota.grants or books.debt > 0) and credit_of(books) or 0
  local is_owing = room == 0 and credit <= 0 and (books.count > books.limit or books.debt > 0)
  local beyond, left = cost - room, math.min(room + math.max(0, credit), MAX_EXACT)
  local entries = #books.uses + #books.used + (quota.grants and #quota.grants or 0)
  if books.is_changed then state = state_in(books) end
  if cost > left or cost == 0 and is_owing or beyond > 0 and entries > MOST_ENTRIES then
    return false, state, left, reset_us_of(books), wait_us_for(books, cost)
  end
  if cost > 0 then
    local from_window = math.min(cost, room)
    books.count, books.held = books.count + from_window, books.held + from_window
    if beyond > 0 then burn(books, beyond, lease) end
    state = state_in(books)
  end
  return true, state, left - cost, reset_us_of(books), 0
end

local function settle(state, now_us, quota, taken_at_us, cost, actual, lease)
  local books = books_of(state, now_us, quota)
  local of_credit = math.min(uses_of(books, lease), cost)
  local of_window, refund = cost - of_credit, math.max(0, cost - actual)
  local refund_of_credit = math.min(refund, of_credit)
  if of_credit > 0 then end_uses(books, lease, of_credit, refund_of_credit) end
  if taken_at_us >= books.began then
    end_holding(books, taken_at_us, of_window)
    books.count = books.count - math.min(books.count, refund - refund_of_credit)
  end
  if actual > cost then
    local beyond = actual - cost
    local from_window = math.min(beyond, math.max(0, books.limit - books.count))
    books.count, beyond = books.count + from_window, beyond - from_window
    if beyond > 0 and quota.grants then beyond = beyond - burn(books, beyond) end
    if quota.grants or quota.never_ends then
      books.debt = books.debt + math.min(beyond, MAX_EXACT - books.debt)
    else
      books.count = books.count + math.min(beyond, MAX_EXACT - books.count)
    end
  end
  pay(books)
  return state_in(books)
end

local function spending(state, now_us, quota)
  local books = books_of(state, now_us, quota)
  local reserved = books.before + books.held
  return books.count - reserved, reserved, credit_of(books), held_of_credit(books), books.ends
end

-- How much was used of each grant, as pairs of its id and that.
local function used_of_grants(state)
  local found = {}
  for at = 9, #state > WITHOUT_CREDIT and 8 + 3 * state[8] or 0, 3 do table.insert(found, {state[at], state[at + 2]}) end
  return found
end

-- Whether as many numbers follow as the state says.
local function is_sound(state)
  if #state <= WITHOUT_CREDIT + 1 then return #state == WITHOUT_CREDIT end
  local uses = #state - 8 - 3 * state[8]
  return uses >= 0 and uses % 4 == 0
end

return {
  admit = admit, settle = settle, expires = expires, spending = spending, is_sound = is_sound,
  used_of_grants = used_of_grants, least = 6, most = 2504,
  step = 1,
}
