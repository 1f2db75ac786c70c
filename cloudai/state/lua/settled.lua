-- The result of a task that ended without a worker is stored. Contract: state/ledger.py, Ledger.settled.
local id, ttl = ARGV[1], ARGV[2]
if redis.call('ZREM', P .. 'unsettled', id) == 0 then return 0 end
redis.call('DEL', P .. 'message:' .. id)
redis.call('EXPIRE', task_key(id), ttl)
return 1
