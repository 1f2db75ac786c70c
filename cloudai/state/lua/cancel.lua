-- Cancel a task. Contract: state/ledger.py, Ledger.cancel.
local id, ttl, reason = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local v = redis.call('HMGET', task_key(id), 'state', 'node', 'devices')
local state = v[1]
if not state then return {'unknown', ''} end
if state == 'running' then
  redis.call('HSET', task_key(id), 'revoked', '1')
  return {'running', v[2]}
end
if state ~= 'waiting' and state ~= 'placed' then return {state, v[2] or ''} end
if state == 'placed' then
  release(id, v[2], need_of(id), v[3])
  redis.call('LREM', v[2] .. '.dq2', 0, id)
end
drop_hold(id)
unpark(id)
redis.call('HSET', task_key(id), 'revoked', '1')
end_without_worker(id, 'cancelled', reason, ttl)
return {'cancelled', v[2] or ''}
