-- Twin of provider_bucket.py.

local bucket = algorithm_of('token-bucket')

local function settle(state, now_us, quota, taken_at_us, cost, actual, lease)
  return bucket.settle(state, now_us, quota, taken_at_us, cost, actual, lease, cost == 0 and actual > 0)
end

return {
  admit = bucket.admit, settle = settle, expires = bucket.expires, least = bucket.least, most = bucket.most, step = bucket.step,
}
