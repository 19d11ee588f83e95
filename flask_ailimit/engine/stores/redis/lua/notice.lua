-- Twin of notice.py: the name of the notice about a count is the count's own, with its last bit changed.

local function notice_of(bucket)
  local last = bucket:byte(8)
  return bucket:sub(1, 7) .. string.char(last % 2 == 0 and last + 1 or last - 1)
end
