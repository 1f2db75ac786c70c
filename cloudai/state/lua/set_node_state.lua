-- Drain a node, take it back into service, or sign it off. Contract: state/fleet.py: Fleet.drain, undrain, sign_off.
-- ARGV: name, new state (up, draining, down), incarnation or ''.
local name, state, incarnation = ARGV[1], ARGV[2], ARGV[3]
local key = node_key(name)
local v = redis.call('HMGET', key, 'state', 'incarnation')
if not v[1] then return 'unknown' end
if incarnation ~= '' and v[2] ~= incarnation then return 'superseded' end
if state == 'up' and v[1] ~= 'draining' then return v[1] end
if state == 'draining' and v[1] ~= 'up' and v[1] ~= 'draining' then return v[1] end
redis.call('HSET', key, 'state', state)
local held = redis.call('HGET', key, 'held_for')
if state ~= 'up' and held and held ~= '' then drop_hold(held) end
touch(name)
event(state, '', 'node', name)
-- What was placed but not claimed goes elsewhere.
if state ~= 'up' then
  for _, id in ipairs(redis.call('SMEMBERS', key .. ':tasks')) do
    if redis.call('HGET', task_key(id), 'state') == 'placed' then take_back(id, 'node ' .. state) end
  end
end
if state == 'down' then redis.call('ZREM', P .. 'heartbeats', name) end
return state
