-- Attempts have ended. Contract: state/ledger.py, Ledger.finish and finish_several.
-- ARGV: a JSON list of reports (id, attempt, outcome, runtime (s, or ''), reason, started (epoch s, or 0), usage fields as name,
-- value pairs for the event), the rule of learning (as in scheduling/learning.py), entry ttl (s), '' or a JSON list (known fleet version, limit of rows, shapes, tasks of
-- a shape) for a look at the waiting set behind it, and '' or a JSON list of successors: how many tasks had been parked when they
-- were chosen, decision ttl, proposals (as for place_proposal) and the times of the decisions (as for count_times); then the decision record of each proposal.
-- Returns a text for each report, what became of each proposal (nothing, if any task was parked since), and the look or ''.
local rule, ttl = cjson.decode(ARGV[2]), tonumber(ARGV[3])

-- Predicted and actual runtime of a success, and by how much they differ, in microseconds (spec section 3).
local function count_prediction(kind, runtime, predicted)
  if not predicted then return end
  local function add(name, s)
    redis.call('HINCRBY', P .. 'counters', name .. ':' .. kind, string.format('%.0f', math.min(s, 1e6) * 1e6))
  end
  add('runtime_us', runtime)
  add('prediction_error_us', math.abs(runtime - predicted))
  count('predictions:' .. kind)
end

local function finish(report)
  local id, attempt, outcome, runtime = report[1], report[2], report[3], tonumber(report[4])
  local reason, started = report[5], report[6]
  local key = task_key(id)
  local v = redis.call('HMGET', key, 'state', 'attempt', 'node', 'devices', 'type', 'deadline', 'arrival', 'claimed',
                       'revoked', 'features', 'tau', 'predicted', 'parameters', 'family', 'cpu', 'memory', 'gpu', 'storage')
  if v[1] ~= 'running' or v[2] ~= attempt then
    count('finishes_refused')
    return 'stale\t' .. redis.call('ZCARD', P .. 'waiting') .. '\t\t\t\t'
  end
  release(id, v[3], {tonumber(v[15]), tonumber(v[16]), tonumber(v[17]), tonumber(v[18])}, v[4])
  if started == 0 then started = tonumber(v[8]) end

  local revoked = v[9] == '1'
  local follows = outcome ~= 'cancelled' and redis.call('EXISTS', P .. 'next:' .. id) == 1
  local status = 'finished'
  if outcome == 'requeued' and not revoked then status = 'waiting'
  elseif follows and not revoked then status = 'next'
  elseif follows or outcome == 'retried' or outcome == 'requeued' then
    status = 'unsettled'
    outcome = revoked and 'cancelled' or 'failed'
    reason = revoked and 'cancelled; it does not run again' or 'the retry was never published'
  end

  local sla = '0'
  if outcome == 'succeeded' and now <= tonumber(v[6]) then sla = '1' end

  local ends = status == 'finished' or status == 'unsettled'
  if ends and sla == '0' and outcome ~= 'cancelled' then count_node('sla_violations', v[3]) end

  -- Tau learns from successes only (spec section 2), here because it must be one step. The sample is the runtime on a
  -- reference node, where the speed of this pair is known.
  local old_tau, new_tau, spread, samples, of_family, verdict = '', '', '', '', '', ''
  if status == 'finished' and outcome == 'succeeded' and report[4] ~= '' then
    local kind = rule.types[v[5]]
    if kind and runtime and runtime > 0 and runtime < math.huge then
      local sample = runtime / (tonumber(redis.call('HGET', P .. 'speed', v[5] .. ':' .. v[3])) or 1)
      count_prediction(v[5], runtime, tonumber(v[12] or ''))
      local known = redis.call('HMGET', P .. 'tau', v[5], v[5] .. ':share')
      local s = known[1] and read_learned(known[1])
                or {tau = kind[2], variance = 0, samples = 0, run = 0, rejected = 0}
      old_tau = string.format('%.9g', s.tau)
      if learn(s, sample, rule, kind[1], false) then
        verdict, new_tau = 'learned', string.format('%.9g', s.tau)
        spread, samples = string.format('%.9g', s.variance), s.samples
      else
        verdict = 'outlier'
        count('tau_outliers')
      end
      -- Beside it, the runtime as a share of the time from arrival to deadline, which may foretell it better.
      local window = (tonumber(v[6]) or 0) - (tonumber(v[7]) or 0)
      if window > 0 and window < math.huge then
        local share = known[2] and read_learned(known[2])
                      or {tau = sample / window, variance = 0, samples = 0, run = 0, rejected = 0}
        learn(share, sample / window, rule, kind[1], true)
        redis.call('HSET', P .. 'tau', v[5], learned_text(s), v[5] .. ':share', learned_text(share))
      else
        redis.call('HSET', P .. 'tau', v[5], learned_text(s))
      end
      if v[14] and v[14] ~= '' then
        of_family = string.format('%.9g', learn_family(v[5] .. ':' .. v[14], sample, rule, kind[1]).tau)
      end
    else
      count('tau_samples_refused')
    end
  end

  event('finished', id, 'node', v[3], 'attempt', attempt, 'outcome', outcome,
        'final', ends and '1' or '0', 'reason', reason, 'type', v[5],
        'arrival', v[7], 'deadline', v[6], 'started', seconds(started), 'runtime', report[4], 'sla_success', sla,
        'features', v[10] or '', 'tau', v[11] or '', 'predicted', v[12] or '', 'parameters', v[13] or '',
        'family', v[14] or '', 'tau_old', old_tau, 'tau_new', new_tau,
        'tau_variance', spread, 'tau_samples', samples, 'tau_verdict', verdict, 'family_tau', of_family, 'cpu', v[15], 'memory', v[16], 'gpu', v[17],
        'storage', v[18], unpack(report[7]))

  if status == 'waiting' then
    count('finished_requeued')
    redis.call('HSET', key, 'node', '', 'devices', '')
    park(id)
    event('waiting', id, 'reason', reason ~= '' and reason or 'requeued', 'node', v[3], 'attempt', attempt)
  elseif status == 'next' then
    count('finished_' .. outcome)
    promote(id)
  elseif status == 'unsettled' then
    close_unsettled(id, outcome, reason, ttl)
  else
    count('finished_' .. outcome)
    redis.call('HSET', key, 'sla_success', sla, 'runtime', report[4])
    close(id, outcome, reason, ttl)
    redis.call('DEL', P .. 'message:' .. id)
  end
  return table.concat({status, redis.call('ZCARD', P .. 'waiting'), v[5] or '', old_tau, new_tau, verdict}, '\t')
end

local replies = {}
for i, report in ipairs(cjson.decode(ARGV[1])) do replies[i] = finish(report) end
local results = {}
if ARGV[5] ~= '' then
  local s = cjson.decode(ARGV[5])
  count_times(s[4])
  if tonumber(redis.call('GET', P .. 'waiting:parked') or '0') == s[1] then
    for p, proposal in ipairs(s[3]) do results[p] = place_proposal(proposal, ARGV[p + 5], s[2]) end
  end
end
local seen = ''
if ARGV[4] ~= '' and redis.call('EXISTS', P .. 'waiting') == 1 then
  local a = cjson.decode(ARGV[4])
  seen = look(a[1], a[2], a[3], a[4])
end
return {replies, results, seen}
