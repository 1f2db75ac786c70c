-- A node that can speak again asks for a job that it has paused. Contract: state/ledger.py, Ledger.resume.
-- ARGV: id, attempt, node, seconds that it has been paused.
local id, name, paused = ARGV[1], ARGV[3], tonumber(ARGV[4])
local v = redis.call('HMGET', task_key(id), 'state', 'attempt', 'node', 'paused')
if v[1] ~= 'running' or v[2] ~= ARGV[2] or v[3] ~= name then return 0 end
redis.call('HSET', task_key(id), 'paused', seconds(tonumber(v[4] or '0') + paused))
event('paused', id, 'node', name, 'attempt', v[2], 'since', seconds(now - paused))
event('resumed', id, 'node', name, 'attempt', v[2], 'paused', seconds(paused))
return 1
