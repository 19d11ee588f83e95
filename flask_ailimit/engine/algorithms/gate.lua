-- Twin of gate.py: the same operations in the same order.

local NEUTRAL = 0
local UNCORRECTED = 1
local GOOD = 2
local FAULT = 3

local CLOSED = 0
local PAUSED = 1
local OPEN = 2
local HALF_OPEN = 3

local OUTCOMES = 4
local STATUSES = 1024
local PROBES = 1099511627776
local COUNTED_FOR_US = 30000000
local LEAST_COUNTED = 10
local FIRST_OPEN_US = 1000000
local LONGEST_OPEN_US = 10000000
local LONGEST_PROBE_WAIT_US = 1000000

-- The places of the numbers in a state.
local STARTED = 1
local COUNTED_GOOD = 2
local COUNTED_FAULTS = 3
local PAUSED_UNTIL = 4
local PAUSE_US = 5
local PAUSED_BY = 6
local OPENED_UNTIL = 7
local OPEN_US = 8
local OPENED_BY = 9
local PROBE = 10
local PROBE_ENDS = 11

local function full(state)
  local gate = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  for i = 1, #state do gate[i] = state[i] end
  return gate
end

local function clear(gate, first, last)
  for i = first, last do gate[i] = 0 end
end

local function present(state, now_us, quota)
  local gate = full(state)
  if gate[STARTED] > now_us then
    gate[STARTED] = now_us
  elseif gate[STARTED] + COUNTED_FOR_US <= now_us then
    clear(gate, STARTED, COUNTED_FAULTS)
  end
  gate[PAUSED_UNTIL] = math.min(gate[PAUSED_UNTIL], now_us + gate[PAUSE_US])
  if gate[PAUSED_UNTIL] <= now_us then clear(gate, PAUSED_UNTIL, PAUSED_BY) end
  if gate[OPEN_US] > 0 then
    gate[OPENED_UNTIL] = math.min(gate[OPENED_UNTIL], now_us + gate[OPEN_US])
    gate[PROBE_ENDS] = math.min(gate[PROBE_ENDS], now_us + quota.period * MICROSECONDS)
    if math.max(gate[OPENED_UNTIL], gate[PROBE_ENDS]) + COUNTED_FOR_US <= now_us then clear(gate, OPENED_UNTIL, PROBE_ENDS) end
  end
  return gate
end

local function ends(gate)
  local counted = gate[STARTED] > 0 and gate[STARTED] + COUNTED_FOR_US or 0
  local known = gate[OPEN_US] > 0 and math.max(gate[OPENED_UNTIL], gate[PROBE_ENDS]) + COUNTED_FOR_US or 0
  return math.max(counted, gate[PAUSED_UNTIL], known)
end

local function state_in(gate)
  if gate[PAUSED_UNTIL] > 0 or gate[OPEN_US] > 0 then return gate end
  return gate[STARTED] > 0 and {gate[STARTED], gate[COUNTED_GOOD], gate[COUNTED_FAULTS]} or {}
end

local function standing(gate, now_us)
  if gate[PAUSED_UNTIL] > now_us then return PAUSED, gate[PAUSED_BY], 0 end
  if gate[OPEN_US] > 0 then
    local probe = gate[PROBE_ENDS] > now_us and gate[PROBE] % PROBES or 0
    return gate[OPENED_UNTIL] > now_us and OPEN or HALF_OPEN, gate[OPENED_BY], probe
  end
  return CLOSED, 0, 0
end

local function admit(state, now_us, quota, cost, lease)
  local gate = present(state, now_us, quota)
  local kind, status, probe = standing(gate, now_us)
  local stands, reset_us = (probe * STATUSES + status) * OUTCOMES + kind, math.max(0, ends(gate) - now_us)
  if cost == 0 or kind == CLOSED then return true, state, stands, reset_us, 0 end
  if kind ~= HALF_OPEN then
    return false, state, stands, reset_us, math.max(gate[PAUSED_UNTIL], gate[OPENED_UNTIL]) - now_us
  end
  if gate[PROBE_ENDS] > now_us then
    return false, state, stands, reset_us, math.min(gate[PROBE_ENDS] - now_us, LONGEST_PROBE_WAIT_US)
  end
  gate[PROBE], gate[PROBE_ENDS] = lease, now_us + quota.period * MICROSECONDS
  return true, gate, stands, ends(gate) - now_us, 0
end

local function open(gate, now_us, open_us, status)
  clear(gate, STARTED, COUNTED_FAULTS)
  gate[OPENED_UNTIL], gate[OPEN_US], gate[OPENED_BY] = now_us + open_us, open_us, status
  clear(gate, PROBE, PROBE_ENDS)
end

local function end_probe(gate, now_us, kind, status)
  if kind == GOOD then
    clear(gate, OPENED_UNTIL, PROBE_ENDS)
  elseif kind == FAULT then
    open(gate, now_us, math.min(2 * gate[OPEN_US], LONGEST_OPEN_US), status)
  else
    gate[OPENED_UNTIL] = math.max(gate[OPENED_UNTIL], now_us)
    clear(gate, PROBE, PROBE_ENDS)
  end
end

local function settle(state, now_us, quota, _, cost, actual, lease)
  local gate = present(state, now_us, quota)
  local kind, status, pause_us = UNCORRECTED, 0, 0
  if actual == NEUTRAL or actual == GOOD then kind = actual end
  if cost > 0 then
    kind = actual % OUTCOMES
    local rest = (actual - kind) / OUTCOMES
    status = rest % STATUSES
    pause_us = (rest - status) / STATUSES * 1000
  end
  if kind == UNCORRECTED then return state_in(gate) end
  if pause_us > 0 and now_us + pause_us > gate[PAUSED_UNTIL] then
    gate[PAUSED_UNTIL], gate[PAUSE_US], gate[PAUSED_BY] = now_us + pause_us, pause_us, status
  end
  if gate[PROBE_ENDS] > 0 and gate[PROBE] == lease then
    end_probe(gate, now_us, kind, status)
  elseif cost > 0 and kind ~= NEUTRAL and gate[OPEN_US] == 0 then
    if gate[COUNTED_GOOD] + gate[COUNTED_FAULTS] == 0 then gate[STARTED] = now_us end
    local counts = kind == GOOD and COUNTED_GOOD or COUNTED_FAULTS
    gate[counts] = gate[counts] + 1
    local good, faults = gate[COUNTED_GOOD], gate[COUNTED_FAULTS]
    if kind == FAULT and good + faults >= LEAST_COUNTED and 2 * faults >= good + faults then
      open(gate, now_us, FIRST_OPEN_US, status)
    end
  end
  return state_in(gate)
end

local function renew(state, now_us, quota, wanted)
  local gate = present(state, now_us, quota)
  if gate[PROBE_ENDS] > now_us and wanted[gate[PROBE]] then
    gate[PROBE_ENDS] = now_us + quota.period * MICROSECONDS
  end
  return state_in(gate)
end

local function expires(state)
  return ends(full(state))
end

return {admit = admit, settle = settle, expires = expires, renew = renew, least = 3, most = 11, step = 8}
