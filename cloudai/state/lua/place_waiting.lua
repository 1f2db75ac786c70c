-- Place waiting tasks. Contract: state/ledger.py, Ledger.place_waiting.
-- ARGV: a JSON list of known fleet version, limit of rows, decision ttl and the proposals (id, reason of a fallback or '',
-- predicted runtime, parameters' version, and name, features of each candidate); then the decision record of each proposal.
local a = cjson.decode(ARGV[1])
local since, limit, ttl, proposals = a[1], a[2], a[3], a[4]
local results = {}
for p, proposal in ipairs(proposals) do
  local id, fallback, offered, record = proposal[1], proposal[2], proposal[5], ARGV[p + 1]
  local v = redis.call('HMGET', task_key(id), 'state', 'cpu', 'memory', 'gpu', 'storage', 'attempt')
  if v[1] == 'waiting' and redis.call('ZSCORE', P .. 'waiting', id) then
    local candidates = {}
    for i = 1, #offered, 2 do candidates[#candidates + 1] = {offered[i], offered[i + 1]} end
    local need = {tonumber(v[2]), tonumber(v[3]), tonumber(v[4]), tonumber(v[5])}
    local node = try_place(id, need, candidates, tonumber(v[6] or '0') + 1)
    if node then
      redis.call('HSET', task_key(id), 'predicted', proposal[3], 'parameters', proposal[4])
      count_decision(fallback)
      drop_hold(id)
      unpark(id)
      if record ~= '' then redis.call('SET', P .. 'decision:' .. id, record, 'EX', ttl) end
    end
    results[p] = node or ''
  else
    results[p] = 'gone'
  end
end
return {NOW, results, changes(since, limit)}
