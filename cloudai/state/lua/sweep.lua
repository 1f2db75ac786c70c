-- What only time brings about. Contract: state/sweep.py, Sweep.run.
-- ARGV: least interval (s), heartbeat timeout, max attempts, ttl, batch, seconds after which a node that is gone is forgotten,
-- margin behind the lease (s).
local interval, timeout, max_attempts, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local batch, forget, margin = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local sweep_key = P .. 'sweep'
local v = redis.call('HMGET', sweep_key, 'at', 'judge_after')
local last, judge_after = tonumber(v[1] or '0'), tonumber(v[2] or '0')
if now - last < interval then return {'busy', redis.call('ZCARD', P .. 'heartbeats')} end
-- Nobody swept for a while, so Redis (or everybody) was away: let every node speak before it is judged.
if now - last > timeout then
  judge_after = now + timeout + margin
  redis.call('HSET', sweep_key, 'judge_after', seconds(judge_after))
end
redis.call('HSET', sweep_key, 'at', NOW)
local log, moved = {}, 0

for _, id in ipairs(redis.call('ZRANGE', P .. 'delayed', '-inf', now, 'BYSCORE', 'LIMIT', 0, batch)) do
  redis.call('ZREM', P .. 'delayed', id)
  park(id)
  event('waiting', id, 'reason', 'eta reached')
  moved = moved + 1
end

for _, id in ipairs(redis.call('ZRANGE', P .. 'expiring', '-inf', now, 'BYSCORE', 'LIMIT', 0, batch)) do
  redis.call('ZREM', P .. 'expiring', id)
  local t = redis.call('HMGET', task_key(id), 'state', 'node', 'devices')
  if t[1] == 'waiting' or t[1] == 'placed' then
    if t[1] == 'placed' then
      release(id, t[2], need_of(id), t[3])
      redis.call('LREM', t[2] .. '.dq2', 0, id)
    end
    drop_hold(id)
    unpark(id)
    end_without_worker(id, 'expired', 'it expired before a node could start it', ttl)
    log[#log + 1] = 'expired task ' .. id
  end
end

-- Whole messages in the list of a node that is gone go where any node takes them in (names.PLACE_QUEUE); doorbells among them
-- are of tasks that are placed elsewhere by now.
local function rescue(name)
  for _ = 1, batch do
    local item = redis.call('RPOP', name .. '.dq2')
    if not item then return end
    if string.sub(item, 1, 1) == '{' then
      redis.call('LPUSH', 'cloudai.place', item)
      count('messages_rescued')
    end
  end
end

if now >= judge_after then
  for _, name in ipairs(redis.call('ZRANGE', P .. 'heartbeats', '-inf', now - timeout, 'BYSCORE', 'LIMIT', 0, batch)) do
    local key = node_key(name)
    local n = redis.call('HMGET', key, 'state', 'heartbeat', 'lease', 'held_for', 'timeout')
    local silent = n[2] and now - tonumber(n[2])
    if not n[1] then redis.call('ZREM', P .. 'heartbeats', name)
    elseif silent > tonumber(n[5]) then
      if n[1] == 'up' or n[1] == 'draining' then
        redis.call('HSET', key, 'state', 'stale')
        if n[4] ~= '' then drop_hold(n[4]) end
        touch(name)
        event('stale', '', 'node', name)
        log[#log + 1] = string.format('node %s has been silent for %.0f s: it gets nothing new', name, silent)
      end
      local lease = tonumber(n[3]) + margin
      local lost = silent > lease
      if lost then
        redis.call('HSET', key, 'state', 'lost')
        touch(name)
        event('lost', '', 'node', name)
        log[#log + 1] = string.format('node %s is lost after %.0f s of silence: its tasks are placed again', name, silent)
        redis.call('ZREM', P .. 'heartbeats', name)
        redis.call('ZADD', P .. 'gone', n[2], name)
      else
        -- Nothing more to do here until its lease has run out: those that come after it must have their turn.
        redis.call('ZADD', P .. 'heartbeats', tonumber(n[2]) + lease - timeout, name)
      end
      for _, id in ipairs(redis.call('SMEMBERS', key .. ':tasks')) do
        local t = redis.call('HMGET', task_key(id), 'state', 'devices', 'attempt')
        if t[1] == 'placed' then
          take_back(id, 'node silent')
          moved = moved + 1
        elseif t[1] == 'running' and lost then
          release(id, name, need_of(id), t[2])
          if lose(id, name, max_attempts, ttl) then
            park(id)
            event('waiting', id, 'reason', 'node lost', 'node', name, 'attempt', t[3])
            moved = moved + 1
          end
        end
      end
      if lost then rescue(name) end
    end
  end
end

for _, name in ipairs(redis.call('ZRANGE', P .. 'gone', '-inf', now - forget, 'BYSCORE', 'LIMIT', 0, batch)) do
  redis.call('ZREM', P .. 'gone', name)
  redis.call('ZREM', P .. 'fleet', name)
  rescue(name)
  redis.call('DEL', node_key(name), node_key(name) .. ':tasks', name .. '.dq2')
  redis.call('HDEL', P .. 'counters:nodes', 'placements:' .. name, 'sla_violations:' .. name)
  log[#log + 1] = 'node ' .. name .. ' is forgotten'
end

local unsettled = redis.call('ZRANGE', P .. 'unsettled', '-inf', now - interval, 'BYSCORE', 'LIMIT', 0, batch)
return {'swept', redis.call('ZCARD', P .. 'heartbeats'), moved, unsettled, log, redis.call('ZCARD', P .. 'waiting')}
