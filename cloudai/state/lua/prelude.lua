-- What every script shares: the names of the keys (as in cloudai/names.py), the clock, and the moves of the ledger.
-- KEYS[1] is the deployment's prefix with its hash tag; every other key is built from it.
-- Amounts are integers (1/1000 core, KiB, 1/1000 GPU device), so that sums are exact.
local P = KEYS[1]
local EVENTS_MAXLEN = @EVENTS_MAXLEN@ -- written in by scripts.py from limits.events_maxlen
local TIME = redis.call('TIME')
local now = tonumber(TIME[1]) + tonumber(TIME[2]) / 1e6
local NOW = string.format('%.6f', now)

local function task_key(id) return P .. 'task:' .. id end
local function node_key(name) return P .. 'node:' .. name end
local function count(name) redis.call('HINCRBY', P .. 'counters', name, 1) end
-- The same for one node; forgotten with it (sweep.lua).
local function count_node(name, node) redis.call('HINCRBY', P .. 'counters:nodes', name .. ':' .. node, 1) end
-- How long the caller's decisions took since it last spoke: microseconds in all, then bucket and count in turn.
local function count_times(times)
  if not times or not times[1] then return end
  redis.call('HINCRBY', P .. 'counters', 'decision_us', times[1])
  for i = 2, #times, 2 do redis.call('HINCRBY', P .. 'counters', 'decisions:' .. times[i], times[i + 1]) end
end
-- Placements by RTS or another scheduler, and those where Round-Robin had to step in, by reason (spec section 5).
local function count_decision(fallback, node)
  count('placements')
  count_node('placements', node)
  if fallback ~= '' then count('fallback:' .. fallback) end
end

local function seconds(x) return string.format('%.6f', x) end

-- One event for each state change; MAXLEN is approximate, the recorder trims behind itself.
local function event(kind, id, ...)
  redis.call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_MAXLEN, '*', 'event', kind, 'id', id, 'at', NOW, ...)
end

-- How many events were ever added to the stream, and how many are in it. The stream must exist.
local function stream_size()
  local info, found = redis.call('XINFO', 'STREAM', P .. 'events'), {}
  for i = 1, #info, 2 do found[info[i]] = info[i + 1] end
  return found['entries-added'], found['length']
end

-- The node's row has changed: give it the fleet's next version, so that snapshots can ask for what is new.
local function touch(name)
  local version = redis.call('INCR', P .. 'fleet:version')
  redis.call('ZADD', P .. 'fleet', version, name)
  return version
end

local function split(list)
  local out = {}
  for item in string.gmatch(list or '', '[^,]+') do out[#out + 1] = tonumber(item) end
  return out
end

-- GPU devices: `free` is the free share of each device, in thousandths.
-- Returns the new shares and the indices taken, or nil. Whole devices must be wholly free; a fraction goes
-- to the fullest device that still has room for it, so that whole devices stay whole.
local function take_gpus(free, need)
  local shares, taken = split(free), {}
  if need >= 1000 then
    local left = need / 1000
    for i = 1, #shares do
      if left > 0 and shares[i] == 1000 then shares[i] = 0; taken[#taken + 1] = i - 1; left = left - 1 end
    end
    if left > 0 then return nil end
  else
    local best
    for i = 1, #shares do
      if shares[i] >= need and (not best or shares[i] < shares[best]) then best = i end
    end
    if not best then return nil end
    shares[best] = shares[best] - need
    taken[1] = best - 1
  end
  return table.concat(shares, ','), table.concat(taken, ',')
end

local function return_gpus(free, need, taken)
  local shares, share = split(free), need
  if need >= 1000 then share = 1000 end
  for _, device in ipairs(split(taken)) do
    if shares[device + 1] then shares[device + 1] = shares[device + 1] + share end
  end
  return table.concat(shares, ',')
end

-- Reserve the need {cpu, memory, gpu, storage} of a task on a node. Returns the GPU devices taken, the fleet's version and
-- the node's row after that (as in `changes`), or nil and why not.
local function reserve(id, need, name)
  local key = node_key(name)
  local v = redis.call('HMGET', key, 'state', 'heartbeat', 'timeout', 'held_for',
                       'cpu', 'memory', 'storage', 'slots', 'gpu', 'incarnation', 'pressure', 'announced')
  if v[1] ~= 'up' then return nil, 'not_accepting' end
  if now - tonumber(v[2]) > tonumber(v[3]) then return nil, 'stale' end
  if v[4] and v[4] ~= '' and v[4] ~= id then return nil, 'held' end
  local cpu, memory, storage, slots = v[5] - need[1], v[6] - need[2], v[7] - need[4], v[8] - 1
  if cpu < 0 then return nil, 'cpu' end
  if memory < 0 then return nil, 'memory' end
  if storage < 0 then return nil, 'storage' end
  if slots < 0 then return nil, 'slots' end
  local devices, shares = '', v[9]
  if need[3] > 0 then
    local taken
    shares, taken = take_gpus(v[9], need[3])
    if not shares then return nil, 'gpu' end
    devices = taken
    redis.call('HSET', key, 'cpu', cpu, 'memory', memory, 'storage', storage, 'slots', slots, 'gpu', shares)
  else
    redis.call('HSET', key, 'cpu', cpu, 'memory', memory, 'storage', storage, 'slots', slots)
  end
  local version = touch(name)
  return devices, version, table.concat({name, version, v[12] or v[10], v[1], v[2], v[4] or '', cpu, memory, storage, slots, shares or '',
                                         v[11]}, '\t')
end

-- Give back what `reserve` took. Idempotent: the node's set of tasks says whether it was taken at all.
local function release(id, name, need, devices)
  if redis.call('SREM', node_key(name) .. ':tasks', id) == 0 then return false end
  local key = node_key(name)
  local v = redis.call('HMGET', key, 'cpu', 'memory', 'storage', 'slots', 'gpu')
  if not v[1] then return false end
  local cpu, memory, storage, slots = v[1] + need[1], v[2] + need[2], v[3] + need[4], v[4] + 1
  if need[3] > 0 then
    redis.call('HSET', key, 'cpu', cpu, 'memory', memory, 'storage', storage, 'slots', slots,
               'gpu', return_gpus(v[5], need[3], devices))
  else
    redis.call('HSET', key, 'cpu', cpu, 'memory', memory, 'storage', storage, 'slots', slots)
  end
  touch(name)
  return true
end

local function need_of(id)
  local v = redis.call('HMGET', task_key(id), 'cpu', 'memory', 'gpu', 'storage')
  return {tonumber(v[1]), tonumber(v[2]), tonumber(v[3]), tonumber(v[4])}
end

-- A node that was kept for a starving task is kept no longer.
local function drop_hold(id)
  local held = redis.call('HGET', task_key(id), 'hold')
  if held and held ~= '' then
    if redis.call('HGET', node_key(held), 'held_for') == id then
      redis.call('HSET', node_key(held), 'held_for', '')
      touch(held)
    end
    redis.call('HDEL', task_key(id), 'hold')
  end
end

-- Reserve on the first candidate that still fits. `candidates` is a list of {name, features}; returns the candidate, the GPU
-- devices, the fleet's version and the node's row, or nil.
local function reserve_first(id, need, candidates)
  for _, candidate in ipairs(candidates) do
    local devices, version, row = reserve(id, need, candidate[1])
    if devices then return candidate, devices, version, row end
  end
  return nil
end

-- The doorbell of a task whose entry says that it is placed. What follows goes into its event.
local function ring(id, name, attempt, features, ...)
  redis.call('SADD', node_key(name) .. ':tasks', id)
  redis.call('LPUSH', name .. '.dq2', id)
  event('placed', id, 'node', name, 'attempt', attempt, 'features', features, ...)
end

-- Place a known task on the first candidate that still fits; returns the node's name or nil. What follows goes into its entry
-- and its event.
local function try_place(id, need, candidates, attempt, ...)
  local candidate, devices = reserve_first(id, need, candidates)
  if not candidate then return nil end
  redis.call('HSET', task_key(id), 'state', 'placed', 'node', candidate[1], 'attempt', attempt, 'devices', devices,
             'placed', NOW, 'features', candidate[2], ...)
  ring(id, candidate[1], attempt, candidate[2], ...)
  return candidate[1]
end

-- The waiting set: by deadline over all, and by deadline within each shape of request. A deadline counts in whole
-- seconds, priority (0 first, as in Celery's Redis transport) orders tasks of the same second.
local function urgency(deadline, priority)
  local whole = math.floor(deadline)
  return whole + priority / 10 + (deadline - whole) / 10
end

local function park(id)
  local v = redis.call('HMGET', task_key(id), 'shape', 'deadline', 'priority', 'request', 'expires')
  local score = urgency(tonumber(v[2]), tonumber(v[3] or 0))
  local shape_key = P .. 'waiting:shape:' .. v[1]
  redis.call('HSET', task_key(id), 'state', 'waiting', 'since', NOW)
  redis.call('ZADD', P .. 'waiting', score, id)
  redis.call('INCR', P .. 'waiting:parked') -- who has looked knows by it whether anything has come since
  redis.call('ZADD', shape_key, score, id)
  redis.call('SET', P .. 'waiting:request:' .. v[1], v[4])
  local head = redis.call('ZRANGE', shape_key, 0, 0, 'WITHSCORES')
  redis.call('ZADD', P .. 'waiting:shapes', head[2], v[1])
  -- A claim took it off the list of what may expire; it has not started after all.
  if v[5] then redis.call('ZADD', P .. 'expiring', v[5], id) end
end

local function delay(id, eta)
  redis.call('HSET', task_key(id), 'state', 'waiting', 'since', NOW)
  redis.call('ZADD', P .. 'delayed', eta, id)
end

-- Take a task of this shape out of the waiting set; false: it was not there.
local function unpark_of(id, shape)
  if redis.call('ZREM', P .. 'waiting', id) == 0 then return false end
  local shape_key = P .. 'waiting:shape:' .. shape
  redis.call('ZREM', shape_key, id)
  local head = redis.call('ZRANGE', shape_key, 0, 0, 'WITHSCORES')
  if head[2] then redis.call('ZADD', P .. 'waiting:shapes', head[2], shape)
  else
    redis.call('ZREM', P .. 'waiting:shapes', shape)
    redis.call('DEL', P .. 'waiting:request:' .. shape)
  end
  return true
end

local function unpark(id)
  redis.call('ZREM', P .. 'delayed', id)
  unpark_of(id, redis.call('HGET', task_key(id), 'shape'))
end

-- Place a waiting task as proposed: id, reason of a fallback or '', predicted runtime, parameters' version, and name, features of
-- each candidate. Returns the node, '' (nothing fitted) or 'gone' (it waits no longer).
local function place_proposal(proposal, record, ttl)
  local id, fallback, offered = proposal[1], proposal[2], proposal[5]
  local v = redis.call('HMGET', task_key(id), 'state', 'cpu', 'memory', 'gpu', 'storage', 'attempt', 'shape', 'hold', 'tau')
  if v[1] ~= 'waiting' or not redis.call('ZSCORE', P .. 'waiting', id) then return 'gone' end
  local candidates = {}
  for i = 1, #offered, 2 do candidates[#candidates + 1] = {offered[i], offered[i + 1]} end
  local need = {tonumber(v[2]), tonumber(v[3]), tonumber(v[4]), tonumber(v[5])}
  local foretold = {'predicted', proposal[3], 'parameters', proposal[4]}
  if v[9] then foretold[5], foretold[6] = 'tau', v[9] end
  local node = try_place(id, need, candidates, tonumber(v[6] or '0') + 1, unpack(foretold))
  if not node then return '' end
  count_decision(fallback, node)
  if v[8] then drop_hold(id) end
  unpark_of(id, v[7])
  if record ~= '' then redis.call('SET', P .. 'decision:' .. id, record, 'EX', ttl) end
  return node
end

-- The task is over. The entry stays for a while, so that late reports and readers find it.
local function close(id, state, reason, ttl)
  local key = task_key(id)
  redis.call('HSET', key, 'state', state, 'finished', NOW, 'reason', reason)
  redis.call('DEL', P .. 'next:' .. id)
  redis.call('ZREM', P .. 'expiring', id)
  redis.call('DECR', P .. 'live')
  redis.call('EXPIRE', key, ttl)
  redis.call('EXPIRE', P .. 'decision:' .. id, ttl)
end

-- The task ended without a worker: somebody must still store its result (ledger.settled tells that it was done).
local function close_unsettled(id, state, reason, ttl)
  close(id, state, reason, ttl)
  redis.call('PERSIST', task_key(id))
  redis.call('ZADD', P .. 'unsettled', now, id)
  count('finished_' .. state)
end

-- The same, for a task that ended outside an attempt's own report: with the event that such a report would append.
local function end_without_worker(id, state, reason, ttl)
  close_unsettled(id, state, reason, ttl)
  if state ~= 'cancelled' then count_node('sla_violations', '') end
  local v = redis.call('HMGET', task_key(id), 'type', 'attempt', 'deadline', 'arrival', 'node')
  event('finished', id, 'outcome', state, 'final', '1', 'reason', reason, 'type', v[1], 'attempt', v[2] or '0',
        'deadline', v[3], 'arrival', v[4], 'node', v[5] or '', 'sla_success', '0')
end

-- Start the next message of a task (a retry, a replacement): it waits, and the dispatch that follows places it.
-- What it asks for may differ; deadline and arrival stay.
local function promote(id)
  local next_key = P .. 'next:' .. id
  local entry = redis.call('HGETALL', next_key)
  if #entry == 0 then return false end
  local fields, kept = {}, {}
  for i = 1, #entry, 2 do
    fields[entry[i]] = entry[i + 1]
    if entry[i] ~= 'message' and entry[i] ~= 'eta' and entry[i] ~= 'expires' then
      kept[#kept + 1] = entry[i]
      kept[#kept + 1] = entry[i + 1]
    end
  end
  redis.call('DEL', next_key)
  redis.call('SET', P .. 'message:' .. id, fields.message)
  redis.call('HDEL', task_key(id), 'expires')
  redis.call('HSET', task_key(id), 'node', '', 'devices', '', unpack(kept))
  local eta, expires = tonumber(fields.eta), tonumber(fields.expires)
  if expires > 0 then
    redis.call('HSET', task_key(id), 'expires', expires)
    redis.call('ZADD', P .. 'expiring', expires, id)
  end
  if eta > now then delay(id, eta) else park(id) end
  event('waiting', id, 'reason', 'retry', 'retries', fields.retries)
  return true
end

-- Take a placed or running task off its node and let it wait again.
local function take_back(id, reason)
  local v = redis.call('HMGET', task_key(id), 'node', 'devices', 'attempt')
  release(id, v[1], need_of(id), v[2])
  redis.call('LREM', v[1] .. '.dq2', 0, id)
  redis.call('HSET', task_key(id), 'node', '', 'devices', '')
  park(id)
  event('waiting', id, 'reason', reason, 'node', v[1], 'attempt', v[3])
end

-- The node of a running attempt is gone, and the attempt with it; what it held is released already.
-- False: the task ended, or waits with the retry that it had published. True: the caller says where it goes.
local function lose(id, name, max_attempts, ttl)
  local v = redis.call('HMGET', task_key(id), 'losses', 'revoked')
  local losses = tonumber(v[1] or '0') + 1
  redis.call('HSET', task_key(id), 'losses', losses, 'node', '', 'devices', '')
  count('attempts_lost')
  if v[2] == '1' then
    end_without_worker(id, 'cancelled', 'cancelled; its node ' .. name .. ' was lost', ttl)
    return false
  end
  if promote(id) then return false end
  if losses >= max_attempts then
    end_without_worker(id, 'lost', 'its node was lost ' .. losses .. ' times, lately ' .. name
                       .. ' (limits.max_attempts)', ttl)
    return false
  end
  return true
end

-- What changed in the fleet since the caller's version, oldest change first: one text, a line a node, fields apart by
-- tabs (name, version, then as in state/fleet.py). A client reads one long text sooner than many short ones.
local function changes(since, limit)
  local rows = {}
  local list = redis.call('ZRANGE', P .. 'fleet', '(' .. since, '+inf', 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
  for i = 1, #list, 2 do
    local row = redis.call('HMGET', node_key(list[i]), 'incarnation', 'state', 'heartbeat', 'held_for', 'cpu',
                           'memory', 'storage', 'slots', 'gpu', 'pressure', 'announced')
    -- The capacities and labels that go with the row are those of this announcement (announce.lua).
    row[1] = table.remove(row) or row[1]
    for j = 1, #row do row[j] = row[j] or '' end
    rows[#rows + 1] = list[i] .. '\t' .. list[i + 1] .. '\t' .. table.concat(row, '\t')
  end
  return table.concat(rows, '\n')
end

-- Tasks of one shape that a look reads from behind its most urgent ones.
local FURTHER = 12

-- The most urgent waiting tasks of each shape, and what changed in the fleet: the server's time, the number of waiting tasks,
-- the shapes as one text (a line `S shape request` and under it a line `T id deadline since priority hold` a task, or `F ...` one
-- further behind, fields apart by tabs), the changes, and how many tasks have ever been parked. At most `shapes` shapes, and of
-- each `each` tasks with a deadline ahead, FURTHER spread evenly over those behind them, and `each` oldest.
local function look(since, limit, shapes, each)
  local out, seen, chosen, known = {}, {}, {}, {}
  local function add(ids, kind)
    for _, id in ipairs(ids) do
      if not seen[id] then
        seen[id] = true
        local v = redis.call('HMGET', task_key(id), 'deadline', 'since', 'priority', 'hold')
        out[#out + 1] = kind .. '\t' .. id .. '\t' .. v[1] .. '\t' .. v[2] .. '\t' .. (v[3] or '0') .. '\t' .. (v[4] or '')
      end
    end
  end
  local function choose(list)
    for _, shape in ipairs(list) do
      if not known[shape] then
        known[shape] = true
        chosen[#chosen + 1] = shape
      end
    end
  end
  -- The most urgent shapes; some whose deadline is still ahead; and some by chance, so that shapes which fit nowhere cannot
  -- hide the others for ever.
  local half = math.ceil(shapes / 2)
  choose(redis.call('ZRANGE', P .. 'waiting:shapes', 0, half - 1))
  if #chosen == half then
    local quarter = math.ceil(shapes / 4)
    choose(redis.call('ZRANGE', P .. 'waiting:shapes', now, '+inf', 'BYSCORE', 'LIMIT', 0, quarter))
    choose(redis.call('ZRANDMEMBER', P .. 'waiting:shapes', quarter))
  end
  for _, shape in ipairs(chosen) do
    local key = P .. 'waiting:shape:' .. shape
    out[#out + 1] = 'S\t' .. shape .. '\t' .. (redis.call('GET', P .. 'waiting:request:' .. shape) or '')
    -- Some of those whose deadline is still ahead, and some of the oldest: late ones must not hide the others.
    local first = redis.call('ZRANGE', key, now, '+inf', 'BYSCORE', 'LIMIT', 0, each)
    add(first, 'T')
    -- In a long queue the first of them may all be so close to their deadlines that none can make it: some from further behind.
    if #first == each then
      local last = redis.call('ZRANK', key, first[each])
      local behind = redis.call('ZCARD', key) - 1 - last
      local picks = math.min(FURTHER, behind)
      for i = 1, picks do
        local at = last + math.floor(i * behind / picks)
        add(redis.call('ZRANGE', key, at, at), 'F')
      end
    end
    add(redis.call('ZRANGE', key, 0, each - 1), 'T')
  end
  return {NOW, redis.call('ZCARD', P .. 'waiting'), table.concat(out, '\n'), changes(since, limit),
          tonumber(redis.call('GET', P .. 'waiting:parked') or '0')}
end

-- A learned runtime is kept as a text: tau (s), variance (s^2), samples, outliers in a row, outliers rejected. An earlier
-- release kept tau alone.
local function read_learned(text)
  local tau, variance, samples, run, rejected = string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  if not tau then return {tau = tonumber(text), variance = 0, samples = 0, run = 0, rejected = 0} end
  return {tau = tonumber(tau), variance = tonumber(variance), samples = tonumber(samples), run = tonumber(run),
          rejected = tonumber(rejected)}
end

local function learned_text(s)
  return string.format('%.17g %.17g %d %d %d', s.tau, s.variance, s.samples, s.run, s.rejected)
end

local function clamp_tau(x)
  if x < 0.001 then return 0.001 elseif x > 1e6 then return 1e6 end
  return x
end

-- Learn one sample into `s`: the rule of scheduling/learning.py, operation by operation. False: an outlier, only counted.
local function learn(s, sample, rule, rate, from_first)
  local x = clamp_tau(sample)
  local d = x - s.tau
  local run = 0
  if s.samples >= rule.after and math.abs(d) > math.max(rule.sigma * math.sqrt(s.variance), 0.1 * s.tau) then
    local side = d > 0 and 1 or -1
    run = s.run * side > 0 and s.run + side or side
    if math.abs(run) < rule.follow then
      s.run, s.rejected = run, s.rejected + 1
      return false
    end
  end
  if rule.adaptive and s.samples >= rule.after then
    rate = math.max(rate / (1 + s.variance / (s.tau * s.tau)), 0.25 * rate)
  end
  if from_first then rate = math.max(rate, 1 / (s.samples + 1)) end
  local tau = rate * x + (1 - rate) * s.tau
  s.variance = (1 - rate) * (s.variance + rate * d * d)
  s.tau, s.samples, s.run = clamp_tau(tau), s.samples + 1, run
  return true
end

-- The families' own runtimes: the one that was learned longest ago makes room when there are too many.
local function learn_family(member, sample, rule, rate)
  local known = redis.call('HGET', P .. 'tau:families', member)
  local s
  if known then
    s = read_learned(known)
    learn(s, sample, rule, rate, true)
  else
    s = {tau = clamp_tau(sample), variance = 0, samples = 1, run = 0, rejected = 0}
    if redis.call('HLEN', P .. 'tau:families') >= rule.families then
      local oldest = redis.call('ZPOPMIN', P .. 'tau:changed')
      if oldest[1] then redis.call('HDEL', P .. 'tau:families', oldest[1]) end
    end
  end
  redis.call('HSET', P .. 'tau:families', member, learned_text(s))
  redis.call('ZADD', P .. 'tau:changed', redis.call('INCR', P .. 'tau:version'), member)
  return s
end
