-- What a node announces changes while it runs: its labels, and where its jobs live. Contract: state/fleet.py, Fleet.announce.
-- ARGV: name, incarnation, labels json, home.
local name, incarnation, labels, home = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = node_key(name)
local v = redis.call('HMGET', key, 'incarnation', 'state', 'labels', 'home', 'held_for')
if not v[1] then return 'unknown' end
if v[1] ~= incarnation then return 'superseded' end
if v[3] == labels and v[4] == home then return v[2] end
redis.call('HSET', key, 'labels', labels, 'home', home, 'announced', incarnation .. ' ' .. NOW)
touch(name)
if v[3] == labels then return v[2] end
event('announced', '', 'node', name, 'labels', labels)

-- What was placed here, or this node is kept for, by a label that it has no longer waits again.
local now_has = cjson.decode(labels)
local function asks_for_more(id)
  local request = redis.call('HGET', task_key(id), 'request')
  for label, value in pairs(request and cjson.decode(request).constraints or {}) do
    if now_has[label] ~= value then return true end
  end
  return false
end
if v[5] and v[5] ~= '' and asks_for_more(v[5]) then drop_hold(v[5]) end
for _, id in ipairs(redis.call('SMEMBERS', key .. ':tasks')) do
  if redis.call('HGET', task_key(id), 'state') == 'placed' and asks_for_more(id) then
    take_back(id, 'node ' .. name .. ' has not the label any more')
  end
end
return v[2]
