-- A node takes a task that was placed on it, and up to `more` that wait behind it in its list. Contract: state/ledger.py,
-- Ledger.claim_several. ARGV: id, node, incarnation, more. Returns for each the message and its particulars in one text.
local name, incarnation, more = ARGV[2], ARGV[3], tonumber(ARGV[4])
-- A node that was silent for its timeout may have been judged, or is about to be: it must be heard first. The doorbell
-- rings again (Fleet.ring).
local node = redis.call('HMGET', node_key(name), 'incarnation', 'heartbeat', 'timeout')
local heard = node[1] == incarnation and now - tonumber(node[2]) <= tonumber(node[3])
local taken = {}

local function claim(id)
  local v = redis.call('HMGET', task_key(id), 'state', 'node', 'attempt', 'devices', 'arrival', 'deadline',
                       'cpu', 'memory', 'gpu', 'storage', 'adopts')
  if not heard or v[1] ~= 'placed' or v[2] ~= name then return false end
  redis.call('HSET', task_key(id), 'state', 'running', 'claimed', NOW, 'incarnation', incarnation)
  redis.call('ZREM', P .. 'expiring', id)
  event('claimed', id, 'node', name, 'attempt', v[3])
  taken[#taken + 1] = redis.call('GET', P .. 'message:' .. id)
  -- Whether there is a job to attach to was said of one attempt alone (register.lua).
  local attempt, adopts = string.match(v[11] or '', '^(%d+):(%d+)$')
  if attempt ~= v[3] then adopts = '0' end
  taken[#taken + 1] = table.concat({id, v[3], v[4], seconds(now - tonumber(v[5])), v[6], v[7], v[8], v[9], v[10], adopts}, '\t')
  return true
end

if not claim(ARGV[1]) then
  count('claims_refused')
  return taken
end
while more > 0 do
  -- Whatever is no task of ours stays where it is, to be read alone.
  local id = redis.call('LINDEX', name .. '.dq2', -1)
  if not id or string.sub(id, 1, 1) == '{' or not claim(id) then break end
  redis.call('RPOP', name .. '.dq2')
  more = more - 1
end
return taken
