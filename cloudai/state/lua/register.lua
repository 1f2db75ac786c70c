-- A node starts. Contract: state/fleet.py, Fleet.register.
-- ARGV: name, incarnation, cpu, memory, gpu devices, storage, slots, labels json, timeout, lease, pressure, max attempts, ttl, then
-- name, value pairs of what else is shown of the node.
local name, incarnation = ARGV[1], ARGV[2]
local capacity = {tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])}
local timeout, max_attempts, ttl = tonumber(ARGV[9]), tonumber(ARGV[12]), tonumber(ARGV[13])
local key = node_key(name)
local known = redis.call('HMGET', key, 'incarnation', 'state', 'heartbeat')
if known[1] and known[1] ~= incarnation and known[2] ~= 'down' and known[2] ~= 'lost'
   and now - tonumber(known[3]) <= timeout then
  return {'refused', known[1], seconds(now - tonumber(known[3]))}
end

local shares = {}
for i = 1, capacity[3] do shares[i] = 1000 end
redis.call('DEL', key)
redis.call('HSET', key, 'incarnation', incarnation, 'state', 'up', 'heartbeat', seconds(now), 'registered', seconds(now),
           'timeout', timeout, 'lease', ARGV[10], 'held_for', '', 'labels', ARGV[8], 'pressure', ARGV[11],
           'cpu_capacity', capacity[1], 'memory_capacity', capacity[2], 'gpu_capacity', capacity[3],
           'storage_capacity', capacity[4], 'slots_capacity', capacity[5],
           'cpu', capacity[1], 'memory', capacity[2], 'storage', capacity[4], 'slots', capacity[5],
           'gpu', table.concat(shares, ','), unpack(ARGV, 14))
redis.call('ZADD', P .. 'heartbeats', now, name)
touch(name)
event('registered', '', 'node', name, 'incarnation', incarnation, 'cpu', capacity[1], 'memory', capacity[2],
      'gpu', capacity[3], 'storage', capacity[4], 'slots', capacity[5], 'labels', ARGV[8])

-- What the last incarnation held. Unclaimed tasks stay if they still fit; a running one is placed here again, with the
-- next attempt, so that the new incarnation can take over a container that outlived its worker.
local adopted = {}
for _, id in ipairs(redis.call('SMEMBERS', key .. ':tasks')) do
  redis.call('SREM', key .. ':tasks', id)
  redis.call('LREM', name .. '.dq2', 0, id)
  local v = redis.call('HMGET', task_key(id), 'state', 'attempt', 'losses', 'revoked', 'features')
  if v[1] == 'placed' or v[1] == 'running' then
    local losses = tonumber(v[3] or '0')
    if v[1] == 'running' then losses = losses + 1 end
    redis.call('HSET', task_key(id), 'losses', losses, 'node', '')
    if v[4] == '1' then close_unsettled(id, 'cancelled', 'cancelled while its node was away', ttl)
    elseif losses >= max_attempts then
      close_unsettled(id, 'lost', 'its node was lost ' .. losses .. ' times (limits.max_attempts)', ttl)
      count('finished_lost')
    elseif v[1] == 'running' and promote(id) then
      adopted[#adopted + 1] = id
    else
      local attempt = tonumber(v[2])
      if v[1] == 'running' then attempt = attempt + 1 end
      if try_place(id, need_of(id), {{name, v[5] or ''}}, attempt) then adopted[#adopted + 1] = id
      else
        park(id)
        event('waiting', id, 'reason', 'node restarted smaller', 'node', name)
      end
    end
  end
end
return {'registered', adopted, seconds(now)}
