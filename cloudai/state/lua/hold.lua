-- Keep a node for a task that has waited too long. Contract: state/ledger.py, Ledger.hold.
local id, name = ARGV[1], ARGV[2]
if not redis.call('ZSCORE', P .. 'waiting', id) then return 0 end
local v = redis.call('HMGET', node_key(name), 'state', 'held_for')
if v[1] ~= 'up' or (v[2] and v[2] ~= '' and v[2] ~= id) then return 0 end
if v[2] == id then return 1 end
drop_hold(id)
redis.call('HSET', node_key(name), 'held_for', id)
redis.call('HSET', task_key(id), 'hold', name)
touch(name)
event('held', id, 'node', name)
return 1
