-- Give a claim back: shutdown before the task ran, or a requeue. Contract: state/ledger.py, Ledger.unclaim.
local id, attempt = ARGV[1], ARGV[2]
local v = redis.call('HMGET', task_key(id), 'state', 'attempt')
if v[1] ~= 'running' or v[2] ~= attempt then return 0 end
take_back(id, 'unclaimed')
return 1
