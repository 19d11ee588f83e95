-- Forgets one count of a subject.

forget(records[1], number_of(records[1], decode('c8', request, first)))
write(KEYS[1], records[1], now_us)
return replaced and {1, unpack(replaced)} or 1
