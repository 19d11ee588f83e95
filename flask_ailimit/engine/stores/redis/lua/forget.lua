-- Forgets one count of a subject.

local record = record_of(1)
record.changes[struct.unpack('c8', request, first)] = ''
write(record, now_us)
return 1
