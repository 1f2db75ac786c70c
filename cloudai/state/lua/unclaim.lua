-- Give a claim back: shutdown before the task ran, or a requeue. Contract: state/ledger.py, Ledger.unclaim.
local id, attempt, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local v = redis.call('HMGET', task_key(id), 'state', 'attempt', 'revoked', 'node', 'devices')
if v[1] ~= 'running' or v[2] ~= attempt then return 0 end
if v[3] == '1' then
  release(id, v[4], need_of(id), v[5])
  end_without_worker(id, 'cancelled', 'cancelled before it ran', ttl)
else
  take_back(id, 'unclaimed')
end
return 1
