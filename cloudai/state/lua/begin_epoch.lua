-- Begin an epoch of the optimiser, unless one runs or began too lately. Contract: state/epochs.py, Epochs.begin.
-- ARGV: token of this epoch, who runs it, lease (s), least time since the last one began (s).
local key, gap = P .. 'epoch', tonumber(ARGV[4])
local v = redis.call('HMGET', key, 'token', 'until', 'began', 'holder')
if v[1] and tonumber(v[2]) > now then return {'running', NOW, v[3], v[4]} end
local began = tonumber(v[3] or '0')
-- A server whose clock was set back must not wait for it to catch up.
if began <= now and now - began < gap then return {'early', NOW, v[3], v[4]} end
redis.call('HSET', key, 'token', ARGV[1], 'holder', ARGV[2], 'began', NOW, 'until', seconds(now + tonumber(ARGV[3])))
return {'begun', NOW, NOW, ARGV[2]}
