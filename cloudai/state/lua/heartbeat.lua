-- A node is alive. Contract: state/fleet.py, Fleet.heartbeat.
-- ARGV: name, incarnation, pressure, usage json, seconds after which an unchanged row is published again.
local name, incarnation, pressure = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = node_key(name)
local v = redis.call('HMGET', key, 'incarnation', 'state', 'pressure', 'published', 'drain')
if not v[1] then return {'unknown', NOW, 0} end
if v[1] ~= incarnation then return {'superseded', NOW, 0} end
local state, status = v[2], 'ok'
if state == 'stale' or state == 'lost' then
  status = 'returned'
  state = v[5] == '1' and 'draining' or 'up'
  redis.call('ZREM', P .. 'gone', name)
  event('returned', '', 'node', name, 'state', state)
end
if state == 'down' then return {'down', NOW, 0} end
redis.call('ZADD', P .. 'heartbeats', now, name)
redis.call('HSET', key, 'state', state, 'heartbeat', NOW, 'usage', ARGV[4])
-- Telemetry that says nothing new is not published at each beat: a snapshot must not chase thousands of equal rows.
-- NaN is a pressure that could not be measured.
local old = tonumber(v[3] or '0')
if status == 'returned' or math.abs(pressure - old) > 0.02 or (pressure ~= pressure) ~= (old ~= old)
   or now - tonumber(v[4] or '0') > tonumber(ARGV[5]) then
  redis.call('HSET', key, 'pressure', ARGV[3], 'published', NOW)
  touch(name)
end
return {status, NOW, redis.call('ZCARD', P .. 'waiting'), state}
