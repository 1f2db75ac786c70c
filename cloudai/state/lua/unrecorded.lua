-- Events behind the recorder's position. Contract: state/events.py, EventStream.unrecorded. ARGV: how many at most.
-- Returns the time, the position, how many of what is behind it the stream has dropped, how many are left, the entries; and
-- how many were recorded and lost before.
local v = redis.call('HMGET', P .. 'recorder', 'position', 'recorded', 'lost')
local position, recorded, lost = v[1] or '0', tonumber(v[2] or '0'), tonumber(v[3] or '0')
local seen = recorded + lost
if redis.call('EXISTS', P .. 'events') == 0 then return {NOW, position, 0, 0, {}, recorded, lost} end
local added, length = stream_size()
-- Somebody has deleted the stream; it counts from 0 again.
if seen > added then seen = 0 end
local dropped = math.max(0, added - length - seen)
local entries = redis.call('XRANGE', P .. 'events', '(' .. position, '+', 'COUNT', ARGV[1])
return {NOW, position, dropped, added - seen - dropped, entries, recorded, lost}
