-- A node starts. Contract: state/fleet.py, Fleet.register.
-- ARGV: name, incarnation, cpu, memory, gpu devices, storage, slots, labels json, timeout, lease, pressure, max attempts, ttl, a JSON list
-- of the jobs found on its machine (id, attempt), that machine, margin behind a lease, then name, value pairs of what else is shown of it.
local name, incarnation = ARGV[1], ARGV[2]
local capacity = {tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])}
local max_attempts, ttl = tonumber(ARGV[12]), tonumber(ARGV[13])
local home, margin = ARGV[15], tonumber(ARGV[16])
local key = node_key(name)
local known = redis.call('HMGET', key, 'incarnation', 'state', 'heartbeat', 'timeout', 'held_for', 'home', 'lease')
if known[1] and known[1] ~= incarnation and known[2] ~= 'down' and known[2] ~= 'lost'
   and now - tonumber(known[3]) <= tonumber(known[4]) then
  return {'refused', known[1], seconds(now - tonumber(known[3]))}
end
-- What it ran may still run on the machine where it was last, until the lease has paused it there.
if known[1] and known[1] ~= incarnation and known[6] and known[6] ~= home
   and now - tonumber(known[3]) <= tonumber(known[7]) + margin then
  for _, id in ipairs(redis.call('SMEMBERS', key .. ':tasks')) do
    if redis.call('HGET', task_key(id), 'state') == 'running' then
      return {'refused', known[1], seconds(now - tonumber(known[3])), 'elsewhere'}
    end
  end
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
           'gpu', table.concat(shares, ','), 'home', home, 'announced', incarnation .. ' ' .. NOW, unpack(ARGV, 17))
redis.call('ZADD', P .. 'heartbeats', now, name)
redis.call('ZREM', P .. 'gone', name)
touch(name)
event('registered', '', 'node', name, 'incarnation', incarnation, 'cpu', capacity[1], 'memory', capacity[2],
      'gpu', capacity[3], 'storage', capacity[4], 'slots', capacity[5], 'labels', ARGV[8])

-- What the last incarnation held. A running task whose job was found is placed here again, with the next attempt, on the very
-- devices that the job has: it attaches to the job, so nothing is lost. Then other running tasks, which begin anew; then the
-- unclaimed ones. What does not fit any more waits.
local jobs, adopted, adopting = {}, {}, {}
for _, job in ipairs(cjson.decode(ARGV[14])) do jobs[job[1]] = tostring(job[2]) end

local function reserve_again(id, need, devices)
  local v = redis.call('HMGET', key, 'cpu', 'memory', 'storage', 'slots', 'gpu')
  local cpu, memory, storage, slots = v[1] - need[1], v[2] - need[2], v[3] - need[4], v[4] - 1
  if cpu < 0 or memory < 0 or storage < 0 or slots < 0 then return false end
  local left, share = split(v[5]), math.min(need[3], 1000)
  for _, device in ipairs(split(devices)) do
    if not left[device + 1] or left[device + 1] < share then return false end
    left[device + 1] = left[device + 1] - share
  end
  redis.call('HSET', key, 'cpu', cpu, 'memory', memory, 'storage', storage, 'slots', slots, 'gpu', table.concat(left, ','))
  touch(name)
  return true
end

local function attach(id)
  local v = redis.call('HMGET', task_key(id), 'attempt', 'revoked', 'devices', 'features', 'adopts')
  local found = jobs[id]
  -- The job is this attempt's, or this attempt was to attach to it and did not come so far.
  if not found or (found ~= v[1] and v[5] ~= v[1] .. ':' .. found) then return false end
  if v[2] == '1' or redis.call('EXISTS', P .. 'next:' .. id) == 1 then return false end
  if not reserve_again(id, need_of(id), v[3] or '') then return false end
  local attempt = tonumber(v[1]) + 1
  redis.call('HSET', task_key(id), 'state', 'placed', 'node', name, 'attempt', attempt, 'placed', NOW,
             'adopts', attempt .. ':' .. found)
  redis.call('SADD', key .. ':tasks', id)
  redis.call('LPUSH', name .. '.dq2', id)
  event('placed', id, 'node', name, 'attempt', attempt, 'features', v[4] or '', 'adopts', found)
  count('attempts_adopted')
  adopted[#adopted + 1] = id
  adopting[#adopting + 1] = id
  return true
end

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

local held, unclaimed, begun = redis.call('SMEMBERS', key .. ':tasks'), {}, {}
redis.call('DEL', key .. ':tasks')
for _, id in ipairs(held) do
  redis.call('LREM', name .. '.dq2', 0, id)
  if not attach(id) then
    local list = redis.call('HGET', task_key(id), 'state') == 'placed' and unclaimed or begun
    list[#list + 1] = id
  end
end
for _, id in ipairs(begun) do
  if lose(id, name, max_attempts, ttl) then adopt(id) end
end
for _, id in ipairs(unclaimed) do adopt(id) end
return {'registered', adopted, NOW, adopting}
