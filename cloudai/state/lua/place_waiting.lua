-- Place waiting tasks. Contract: state/ledger.py, Ledger.place_waiting.
-- ARGV: known fleet version, limit of rows, decision ttl, then for each task: id, decision, reason of a fallback
-- or '', number of candidates, and name, features of each.
local since, limit, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local results, i = {}, 4
while i <= #ARGV do
  local id, decision, fallback, candidates = ARGV[i], ARGV[i + 1], ARGV[i + 2], {}
  local n = tonumber(ARGV[i + 3])
  i = i + 4
  for _ = 1, n do
    candidates[#candidates + 1] = {ARGV[i], ARGV[i + 1]}
    i = i + 2
  end
  local v = redis.call('HMGET', task_key(id), 'state', 'cpu', 'memory', 'gpu', 'storage', 'attempt')
  local node
  if v[1] == 'waiting' and redis.call('ZSCORE', P .. 'waiting', id) then
    local need = {tonumber(v[2]), tonumber(v[3]), tonumber(v[4]), tonumber(v[5])}
    node = try_place(id, need, candidates, tonumber(v[6] or '0') + 1)
    if node then
      count_decision(fallback)
      drop_hold(id)
      unpark(id)
      if decision ~= '' then redis.call('SET', P .. 'decision:' .. id, decision, 'EX', ttl) end
    end
    results[#results + 1] = node or ''
  else
    results[#results + 1] = 'gone'
  end
end
return {NOW, results, changes(since, limit)}
