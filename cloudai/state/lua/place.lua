-- Place one submitted task, or let it wait. Contract: state/ledger.py, Ledger.place.
local id, nonce = ARGV[1], ARGV[2]
local need = {tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])}
local shape, task_type, sla, deadline = ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local eta, expires, priority, name, retries = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13], ARGV[14], ARGV[15]
local request, message, decision, decision_ttl = ARGV[16], ARGV[17], ARGV[18], ARGV[19]
local since, max_live, fallback, from = ARGV[20], tonumber(ARGV[21]), ARGV[22], ARGV[23]
local extras = tonumber(ARGV[24])
local key = task_key(id)

local function reply(status, node, attempt)
  return {status, node or '', attempt or 0, seconds(now), changes(since, 16)}
end

local known = redis.call('HMGET', key, 'state', 'nonce', 'attempt', 'revoked')
local state, attempt = known[1], tonumber(known[3] or '0') + 1
if state and known[2] == nonce then return reply('duplicate') end
-- A body that publishes its own task again speaks for its attempt, and only the attempt that runs may.
if from ~= '0' and (state ~= 'running' or known[3] ~= from) then return reply('stale') end
if state then
  if known[4] == '1' then return reply('revoked') end
  if state == 'running' then
    local next_key = P .. 'next:' .. id
    if redis.call('HGET', next_key, 'nonce') == nonce then return reply('duplicate') end
    redis.call('DEL', next_key)
    redis.call('HSET', next_key, 'nonce', nonce, 'retries', retries, 'eta', eta, 'expires', expires, 'message', message,
               'name', name, 'cpu', need[1], 'memory', need[2], 'gpu', need[3], 'storage', need[4], 'shape', shape,
               'type', task_type, 'priority', priority, 'request', request, unpack(ARGV, 25, 24 + extras))
    return reply('next')
  end
  -- Also while its last end is not settled: the result that is about to be stored must not be taken for the new one's.
  if state == 'waiting' or state == 'placed' or redis.call('ZSCORE', P .. 'unsettled', id) then return reply('busy') end
end

if tonumber(redis.call('GET', P .. 'live') or '0') >= max_live then return reply('full') end
redis.call('INCR', P .. 'live')

local arrival = now
if eta > now then arrival = eta end
if not deadline then deadline = arrival + sla end
-- An id that ended before is used again: nothing of its past stays but the count of attempts.
if state then
  redis.call('DEL', key)
  redis.call('HSET', key, 'attempt', attempt - 1)
end
redis.call('HSET', key, 'nonce', nonce, 'name', name, 'cpu', need[1], 'memory', need[2], 'gpu', need[3],
           'storage', need[4], 'shape', shape, 'type', task_type, 'arrival', seconds(arrival),
           'deadline', seconds(deadline), 'priority', priority, 'retries', retries, 'request', request,
           'submitted', seconds(now), unpack(ARGV, 25, 24 + extras))
redis.call('SET', P .. 'message:' .. id, message)
if decision ~= '' then redis.call('SET', P .. 'decision:' .. id, decision, 'EX', decision_ttl) end
if expires > 0 then
  redis.call('HSET', key, 'expires', expires)
  redis.call('ZADD', P .. 'expiring', expires, id)
end
event('submitted', id, 'name', name, 'type', task_type, 'request', request, 'arrival', seconds(arrival),
      'deadline', seconds(deadline), unpack(ARGV, 25, 24 + extras))

if eta > now then
  delay(id, eta)
  event('waiting', id, 'reason', 'eta')
  return reply('delayed')
end
-- Tasks of the same shape that came before go first, in deadline order.
if redis.call('EXISTS', P .. 'waiting:shape:' .. shape) == 0 then
  local candidates = {}
  for i = 25 + extras, #ARGV, 2 do candidates[#candidates + 1] = {ARGV[i], ARGV[i + 1]} end
  local node = try_place(id, need, candidates, attempt)
  if node then
    count_decision(fallback)
    return reply('placed', node, attempt)
  end
end
park(id)
event('waiting', id, 'reason', 'capacity')
return reply('waiting')
