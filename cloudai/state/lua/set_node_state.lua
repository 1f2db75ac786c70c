-- Drain a node, take it back into service, or sign it off. Contract: state/fleet.py: Fleet.drain, undrain, sign_off.
-- ARGV: name, new state (up, draining, down), incarnation or ''.
local name, state, incarnation = ARGV[1], ARGV[2], ARGV[3]
local key = node_key(name)
local v = redis.call('HMGET', key, 'state', 'incarnation', 'drain', 'held_for')
if not v[1] then return 'unknown' end
if incarnation ~= '' and v[2] ~= incarnation then return 'superseded' end
if state == v[1] or v[1] == 'down' or (state == 'up' and v[3] ~= '1') then return v[1] end
-- The wish outlasts a silence: a node that returns is still draining (heartbeat.lua).
redis.call('HSET', key, 'drain', state == 'draining' and '1' or '0')
if state ~= 'down' and v[1] ~= 'up' and v[1] ~= 'draining' then return v[1] end
redis.call('HSET', key, 'state', state)
if state ~= 'up' and v[4] ~= '' then drop_hold(v[4]) end
touch(name)
event(state, '', 'node', name)
-- What was placed but not claimed goes elsewhere.
if state ~= 'up' then
  for _, id in ipairs(redis.call('SMEMBERS', key .. ':tasks')) do
    if redis.call('HGET', task_key(id), 'state') == 'placed' then take_back(id, 'node ' .. state) end
  end
end
-- A node that leaves with running tasks could not report their ends: the sweep keeps an eye on it, and the lease frees them.
if state == 'down' and redis.call('SCARD', key .. ':tasks') == 0 then
  redis.call('ZREM', P .. 'heartbeats', name)
  redis.call('ZADD', P .. 'gone', now, name)
end
return state
