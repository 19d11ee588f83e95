-- What the twins have in common. Lua 5.1 counts in doubles, in which integers below 2^53 are exact. So are these quotients
-- of them: one that isn't whole differs from the next whole number by 1/b at least, which is more than its rounding.

local max, min = math.max, math.min

local function floor_div(a, b)
  return (a - a % b) / b
end

local function ceil_div(a, b)
  local rest = a % b
  if rest == 0 then return a / b end
  return (a - rest) / b + 1
end
