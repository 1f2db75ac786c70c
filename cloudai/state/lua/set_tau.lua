-- Set tau by hand; what was learned of the spread goes with the old value. Contract: state/tau.py, TauTable.set.
local task_type, value = ARGV[1], tonumber(ARGV[2])
local known = redis.call('HGET', P .. 'tau', task_type)
local old = known and string.format('%.9g', read_learned(known).tau) or ARGV[3]
redis.call('HSET', P .. 'tau', task_type,
           learned_text({tau = value, variance = 0, samples = 0, run = 0, rejected = 0}))
redis.call('HDEL', P .. 'tau', task_type .. ':share')
event('tau', '', 'type', task_type, 'tau_old', old, 'tau_new', ARGV[2], 'reason', 'set by hand')
return old
