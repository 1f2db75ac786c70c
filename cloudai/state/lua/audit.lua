-- Compare what a node has reserved with what the ledger holds there, and put it right. Contract: state/fleet.py, Fleet.audit.
-- ARGV: name. Returns '' or what was wrong.
local name = ARGV[1]
local key = node_key(name)
local v = redis.call('HMGET', key, 'cpu', 'memory', 'storage', 'slots', 'gpu', 'cpu_capacity', 'memory_capacity',
                     'storage_capacity', 'slots_capacity', 'gpu_capacity')
if not v[6] then return '' end
local cpu, memory, storage, slots = tonumber(v[6]), tonumber(v[7]), tonumber(v[8]), tonumber(v[9])
local shares, strays = {}, 0
for i = 1, tonumber(v[10]) do shares[i] = 1000 end
for _, id in ipairs(redis.call('SMEMBERS', key .. ':tasks')) do
  local t = redis.call('HMGET', task_key(id), 'state', 'node', 'cpu', 'memory', 'gpu', 'storage', 'devices')
  if (t[1] == 'placed' or t[1] == 'running') and t[2] == name then
    cpu, memory, storage, slots = cpu - t[3], memory - t[4], storage - t[6], slots - 1
    for _, device in ipairs(split(t[7] or '')) do
      if shares[device + 1] then shares[device + 1] = shares[device + 1] - math.min(tonumber(t[5]), 1000) end
    end
  else
    redis.call('SREM', key .. ':tasks', id)
    strays = strays + 1
  end
end
local gpu = table.concat(shares, ',')
local right = tonumber(v[1]) == cpu and tonumber(v[2]) == memory and tonumber(v[3]) == storage and tonumber(v[4]) == slots
if right and (v[5] or '') == gpu and strays == 0 then return '' end
redis.call('HSET', key, 'cpu', cpu, 'memory', memory, 'storage', storage, 'slots', slots, 'gpu', gpu)
touch(name)
count('reservation_leaks')
return string.format('free was cpu %s, memory %s, storage %s, slots %s, gpu %s and is cpu %.0f, memory %.0f, storage %.0f, slots %.0f, gpu %s; %d tasks were not there',
                     v[1], v[2], v[3], v[4], v[5] or '', cpu, memory, storage, slots, gpu, strays)
