-- Place submitted tasks, or let them wait. Contract: state/ledger.py, Ledger.place.
-- ARGV, four for each task: a JSON list of all that is short (one argument costs a client less than forty), the request, the
-- message, the decision record. Returns a text for each.
local function place(short, request, message, decision)
  local a = cjson.decode(short)
  local id, nonce, need = a[1], a[2], {a[3], a[4], a[5], a[6]}
  local shape, task_type, sla, deadline = a[7], a[8], a[9], tonumber(a[10])
  local eta, expires, priority, name, retries = a[11], a[12], a[13], a[14], a[15]
  local decision_ttl, since, max_live, fallback, from = a[16], a[17], a[18], a[19], a[20]
  local extra, offered = a[21], a[22]
  local key = task_key(id)
  count_times(a[23])

  local function reply(status, node, attempt)
    return table.concat({status, node or '', attempt or 0, NOW}, '\t') .. '\n' .. changes(since, 16)
  end

  local known = redis.call('HMGET', key, 'state', 'nonce', 'attempt', 'revoked')
  local state, attempt = known[1], tonumber(known[3] or '0') + 1
  if state and known[2] == nonce then return reply('duplicate') end
  -- A body that publishes its own task again speaks for its attempt, and only the attempt that runs may.
  if from ~= 0 and (state ~= 'running' or tonumber(known[3]) ~= from) then return reply('stale') end
  if state then
    if known[4] == '1' then return reply('revoked') end
    if state == 'running' then
      local next_key = P .. 'next:' .. id
      if redis.call('HGET', next_key, 'nonce') == nonce then return reply('duplicate') end
      redis.call('DEL', next_key)
      redis.call('HSET', next_key, 'nonce', nonce, 'retries', retries, 'eta', eta, 'expires', expires, 'message', message,
                 'name', name, 'cpu', need[1], 'memory', need[2], 'gpu', need[3], 'storage', need[4], 'shape', shape,
                 'type', task_type, 'priority', priority, 'request', request, unpack(extra))
      return reply('next')
    end
    -- Also while its last end is not settled: the result that is about to be stored must not be taken for the new one's.
    if state == 'waiting' or state == 'placed' or redis.call('ZSCORE', P .. 'unsettled', id) then return reply('busy') end
  end

  if redis.call('INCR', P .. 'live') > max_live then
    redis.call('DECR', P .. 'live')
    return reply('full')
  end

  local arrival = eta > now and eta or now
  if not deadline then deadline = arrival + sla end
  local ARRIVAL, DEADLINE = seconds(arrival), seconds(deadline)
  -- An id that ended before is used again: nothing of its past stays but the count of attempts.
  if state then redis.call('DEL', key) end
  redis.call('SET', P .. 'message:' .. id, message)
  if decision ~= '' then redis.call('SET', P .. 'decision:' .. id, decision, 'EX', decision_ttl) end
  event('submitted', id, 'name', name, 'type', task_type, 'request', request, 'arrival', ARRIVAL, 'deadline', DEADLINE,
        unpack(extra))

  -- The entry, with what is known of where the task is.
  local function write(...)
    local entry = {'nonce', nonce, 'name', name, 'cpu', need[1], 'memory', need[2], 'gpu', need[3], 'storage', need[4],
                   'shape', shape, 'type', task_type, 'arrival', ARRIVAL, 'deadline', DEADLINE, 'priority', priority,
                   'retries', retries, 'request', request, 'submitted', NOW, ...}
    for i = 1, #extra do entry[#entry + 1] = extra[i] end
    redis.call('HSET', key, unpack(entry))
    if expires > 0 then
      redis.call('HSET', key, 'expires', expires)
      redis.call('ZADD', P .. 'expiring', expires, id)
    end
  end

  if eta > now then
    write('attempt', attempt - 1)
    delay(id, eta)
    event('waiting', id, 'reason', 'eta')
    return reply('delayed')
  end
  -- Tasks of the same shape that came before go first, in deadline order.
  if redis.call('EXISTS', P .. 'waiting:shape:' .. shape) == 0 then
    local candidates = {}
    for i = 1, #offered, 2 do candidates[#candidates + 1] = {offered[i], offered[i + 1]} end
    local candidate, devices, version, row = reserve_first(id, need, candidates)
    if candidate then
      local node, features = candidate[1], candidate[2]
      write('state', 'placed', 'node', node, 'attempt', attempt, 'devices', devices, 'placed', NOW, 'features', features)
      ring(id, node, attempt, features, unpack(extra))
      count_decision(fallback, node)
      -- Mostly this placement is all that has changed in the fleet since the caller looked.
      if version == since + 1 then
        return table.concat({'placed', node, attempt, NOW}, '\t') .. '\n' .. row
      end
      return reply('placed', node, attempt)
    end
  end
  write('attempt', attempt - 1)
  park(id)
  event('waiting', id, 'reason', 'capacity')
  return reply('waiting')
end

local replies = {}
for i = 1, #ARGV, 4 do replies[#replies + 1] = place(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) end
return replies
