-- What every script begins with. Lua 5.1 counts in doubles, in which integers below 2^53 are exact. So are these quotients
-- of them: one that isn't whole differs from the next whole number by 1/b at least, which is more than its rounding.

local MICROSECONDS = 1000000
local MAX_EXACT = 9007199254740991
local NEVER = -1

local max, min = math.max, math.min

local function floor_div(a, b)
  return (a - a % b) / b
end

local function ceil_div(a, b)
  local rest = a % b
  if rest == 0 then return a / b end
  return (a - rest) / b + 1
end

-- What admit answers: allowed, state, remaining, reset_after_us, retry_after_us (NEVER where Python says None).
