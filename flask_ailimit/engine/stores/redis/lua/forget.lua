-- Forgets one count of a subject, and the notice about it. Answers 1 if there was a count that had not ended.

local bucket = decode('c8', request, first)
local number, notice = number_of(records[1], bucket), number_of(records[1], notice_of(bucket))
local had = records[1].ends[number] * MICROSECONDS > now_us and 1 or 0
forget(records[1], number)
forget(records[1], notice)
write(KEYS[1], records[1], now_us)
return replaced and {had, unpack(replaced)} or had
