-- What every script begins with. The server makes a script's functions, and what they use of each other, anew in each run,
-- which costs it more than the arithmetic: so there are few, and they are given what they need.

local MICROSECONDS = 1000000
local MAX_EXACT = 9007199254740991
local NEVER = -1

local decode, encode = struct.unpack, struct.pack

-- What admit answers: allowed, state, remaining, reset_after_us, retry_after_us (NEVER where Python says None).
