-- A node takes a task that was placed on it. Contract: state/ledger.py, Ledger.claim.
local id, name, incarnation = ARGV[1], ARGV[2], ARGV[3]
local v = redis.call('HMGET', task_key(id), 'state', 'node', 'attempt', 'devices', 'arrival', 'deadline',
                     'cpu', 'memory', 'gpu', 'storage')
if v[1] ~= 'placed' or v[2] ~= name then
  count('claims_refused')
  return false
end
-- A node that was silent for its timeout may have been judged, or is about to be: it must be heard first. The doorbell
-- rings again (Fleet.ring).
local node = redis.call('HMGET', node_key(name), 'incarnation', 'heartbeat', 'timeout')
if node[1] ~= incarnation or now - tonumber(node[2]) > tonumber(node[3]) then
  count('claims_refused')
  return false
end
redis.call('HSET', task_key(id), 'state', 'running', 'claimed', NOW, 'incarnation', incarnation)
redis.call('ZREM', P .. 'expiring', id)
event('claimed', id, 'node', name, 'attempt', v[3])
return {redis.call('GET', P .. 'message:' .. id), tonumber(v[3]), v[4], seconds(now - tonumber(v[5])), v[6], v[7], v[8],
        v[9], v[10]}
