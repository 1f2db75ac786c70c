-- A node's own check: ring again for what is placed on it and whose doorbell is gone. Contract: state/fleet.py, Fleet.ring.
local name, after = ARGV[1], tonumber(ARGV[2])
local rung = {}
for _, id in ipairs(redis.call('SMEMBERS', node_key(name) .. ':tasks')) do
  local v = redis.call('HMGET', task_key(id), 'state', 'placed')
  if v[1] == 'placed' and now - tonumber(v[2]) > after and not redis.call('LPOS', name .. '.dq2', id) then
    redis.call('LPUSH', name .. '.dq2', id)
    rung[#rung + 1] = id
  end
end
return rung
