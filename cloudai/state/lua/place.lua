-- Place one submitted task, or let it wait. Contract: state/ledger.py, Ledger.place.
local id, nonce = ARGV[1], ARGV[2]
local need = {tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])}
local shape, task_type, sla, deadline = ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local eta, expires, priority, name, retries = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13], ARGV[14], ARGV[15]
local request, message, decision, decision_ttl = ARGV[16], ARGV[17], ARGV[18], ARGV[19]
local since, max_live, extras = ARGV[20], tonumber(ARGV[21]), tonumber(ARGV[22])
local key = task_key(id)

local function reply(status, node, attempt)
  return {status, node or '', attempt or 0, seconds(now), changes(since, 16)}
end

local known = redis.call('HMGET', key, 'state', 'nonce', 'retries', 'attempt', 'revoked')
local state = known[1]
if state then
  if known[2] == nonce then return reply('duplicate') end
  if known[5] == '1' then return reply('revoked') end
  if state == 'running' then
    local pending = redis.call('HGET', P .. 'next:' .. id, 'nonce')
    if pending == nonce then return reply('duplicate') end
    redis.call('HSET', P .. 'next:' .. id, 'nonce', nonce, 'retries', retries, 'eta', eta, 'message', message)
    return reply('next')
  end
  if state == 'waiting' or state == 'placed' then return reply('busy') end
end

if tonumber(redis.call('GET', P .. 'live') or '0') >= max_live then return reply('full') end
redis.call('INCR', P .. 'live')

local arrival = now
if eta > now then arrival = eta end
if not deadline then deadline = arrival + sla end
local attempt = tonumber(known[4] or '0') + 1
redis.call('PERSIST', key)
redis.call('HSET', key, 'nonce', nonce, 'name', name, 'cpu', need[1], 'memory', need[2], 'gpu', need[3],
           'storage', need[4], 'shape', shape, 'type', task_type, 'arrival', seconds(arrival),
           'deadline', seconds(deadline), 'priority', priority, 'retries', retries, 'request', request,
           'submitted', seconds(now), unpack(ARGV, 23, 22 + extras))
redis.call('SET', P .. 'message:' .. id, message)
if decision ~= '' then redis.call('SET', P .. 'decision:' .. id, decision, 'EX', decision_ttl) end
if expires > 0 then redis.call('ZADD', P .. 'expiring', expires, id) end
event('submitted', id, 'name', name, 'type', task_type, 'request', request, 'arrival', seconds(arrival),
      'deadline', seconds(deadline), unpack(ARGV, 23, 22 + extras))

if eta > now then
  delay(id, eta)
  return reply('delayed')
end
-- Tasks of the same shape that came before go first, in deadline order.
if redis.call('EXISTS', P .. 'waiting:shape:' .. shape) == 0 then
  local candidates = {}
  for i = 23 + extras, #ARGV, 2 do candidates[#candidates + 1] = {ARGV[i], ARGV[i + 1]} end
  local node = try_place(id, need, candidates, attempt)
  if node then return reply('placed', node, attempt) end
end
park(id)
event('waiting', id, 'reason', 'capacity')
return reply('waiting')
