-- Forgets one count of a subject.

local record = record_of(KEYS[1])
local bucket = struct.unpack('c8', head, at)
if not record[bucket] then return 0 end
record[bucket] = nil
write(KEYS[1], record, now_us)
return 1
