-- What every script begins with. Lua 5.1 counts in doubles: integers are exact below 2^53, and so is math.fmod, but not
-- the operator % nor the quotient of a division that leaves a rest.

local MICROSECONDS = 1000000
local MAX_EXACT = 9007199254740991
local NEVER = -1

local fmod, max, min = math.fmod, math.max, math.min

local function floor_div(a, b)
  return (a - fmod(a, b)) / b
end

local function ceil_div(a, b)
  local rest = fmod(a, b)
  if rest == 0 then return a / b end
  return (a - rest) / b + 1
end

local function exact_text(number)
  return string.format('%.0f', number)
end

-- What admit answers: allowed, state, remaining, reset_after_us, retry_after_us (NEVER where Python says None).
