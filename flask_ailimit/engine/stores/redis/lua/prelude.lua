-- What every script begins with. The server makes a script's functions, and what they use of each other, anew in each run,
-- which costs it more than the arithmetic: so there are few, and they are given what they need.

local MICROSECONDS = 1000000
local MAX_EXACT = 9007199254740991
local NEVER = -1

local LATEST_SECOND = 4294967295

local decode, encode = struct.unpack, struct.pack

-- What admit answers: allowed, state, remaining, reset_after_us, retry_after_us (NEVER where Python says None).

-- When a window ends that begins at a time, or around it. If Python's clock is so far from the server's that the window is
-- not among those that it told, it is to ask again.
local function window_end_us(quota, at_us)
  local b = quota.boundaries
  if b[4] < 0 then return at_us + quota.period * MICROSECONDS end
  if at_us < b[1] or at_us >= b[4] then quota.is_beyond = true end
  return at_us < b[2] and b[2] or at_us < b[3] and b[3] or b[4]
end
