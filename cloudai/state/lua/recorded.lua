-- Events are in the history: move the recorder's position, and trim the stream behind it. Contract: state/events.py,
-- EventStream.recorded. ARGV: position that the batch began behind, position of its last event, how many events, how many had
-- been dropped before them, recorded events that stay in the stream.
local key, keep = P .. 'recorder', tonumber(ARGV[5])
local v = redis.call('HMGET', key, 'position', 'recorded', 'lost')
if (v[1] or '0') ~= ARGV[1] or redis.call('EXISTS', P .. 'events') == 0 then return 0 end
local recorded, lost = tonumber(v[2] or '0'), tonumber(v[3] or '0')
local added = stream_size()
if recorded + lost > added then recorded, lost = 0, 0 end
recorded, lost = recorded + tonumber(ARGV[3]), lost + tonumber(ARGV[4])
redis.call('HSET', key, 'position', ARGV[2], 'recorded', recorded, 'lost', lost, 'at', NOW)
redis.call('XTRIM', P .. 'events', 'MAXLEN', '~', math.max(0, added - recorded - lost) + keep)
return 1
