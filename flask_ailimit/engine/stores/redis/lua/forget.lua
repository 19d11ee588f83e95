-- Forgets one count of a subject. Answers 1 if there was one that had not ended.

local number = number_of(records[1], decode('c8', request, first))
local had = records[1].ends[number] * MICROSECONDS > now_us and 1 or 0
forget(records[1], number)
write(KEYS[1], records[1], now_us)
return replaced and {had, unpack(replaced)} or had
