-- A node starts. Contract: state/fleet.py, Fleet.register.
-- ARGV: name, incarnation, cpu, memory, gpu devices, storage, slots, labels json, timeout, lease, pressure, max attempts, ttl, then
-- name, value pairs of what else is shown of the node.
local name, incarnation = ARGV[1], ARGV[2]
local capacity = {tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])}
local max_attempts, ttl = tonumber(ARGV[12]), tonumber(ARGV[13])
local key = node_key(name)
local known = redis.call('HMGET', key, 'incarnation', 'state', 'heartbeat', 'timeout', 'held_for')
if known[1] and known[1] ~= incarnation and known[2] ~= 'down' and known[2] ~= 'lost'
   and now - tonumber(known[3]) <= tonumber(known[4]) then
  return {'refused', known[1], seconds(now - tonumber(known[3]))}
end

local shares = {}
for i = 1, capacity[3] do shares[i] = 1000 end
if known[5] and known[5] ~= '' then drop_hold(known[5]) end
redis.call('DEL', key)
redis.call('HSET', key, 'incarnation', incarnation, 'state', 'up', 'heartbeat', NOW, 'registered', NOW,
           'timeout', ARGV[9], 'lease', ARGV[10], 'held_for', '', 'labels', ARGV[8], 'pressure', ARGV[11],
           'cpu_capacity', capacity[1], 'memory_capacity', capacity[2], 'gpu_capacity', capacity[3],
           'storage_capacity', capacity[4], 'slots_capacity', capacity[5],
           'cpu', capacity[1], 'memory', capacity[2], 'storage', capacity[4], 'slots', capacity[5],
           'gpu', table.concat(shares, ','), unpack(ARGV, 14))
redis.call('ZADD', P .. 'heartbeats', now, name)
redis.call('ZREM', P .. 'gone', name)
touch(name)
event('registered', '', 'node', name, 'incarnation', incarnation, 'cpu', capacity[1], 'memory', capacity[2],
      'gpu', capacity[3], 'storage', capacity[4], 'slots', capacity[5], 'labels', ARGV[8])

-- What the last incarnation held. Unclaimed tasks stay if they still fit; a running one is placed here again, with the
-- next attempt, so that the new incarnation can take over a container that outlived its worker: it has the first claim to room.
local adopted = {}
local function adopt(id)
  local v = redis.call('HMGET', task_key(id), 'attempt', 'features', 'expires')
  if try_place(id, need_of(id), {{name, v[2] or ''}}, tonumber(v[1]) + 1) then
    adopted[#adopted + 1] = id
    if v[3] then redis.call('ZADD', P .. 'expiring', v[3], id) end
  else
    redis.call('HSET', task_key(id), 'node', '', 'devices', '')
    park(id)
    event('waiting', id, 'reason', 'node restarted smaller', 'node', name, 'attempt', v[1])
  end
end

local held, unclaimed = redis.call('SMEMBERS', key .. ':tasks'), {}
redis.call('DEL', key .. ':tasks')
for _, id in ipairs(held) do
  redis.call('LREM', name .. '.dq2', 0, id)
  if redis.call('HGET', task_key(id), 'state') == 'placed' then unclaimed[#unclaimed + 1] = id
  elseif lose(id, name, max_attempts, ttl) then adopt(id) end
end
for _, id in ipairs(unclaimed) do adopt(id) end
return {'registered', adopted, NOW}
