-- Set tau by hand. Contract: state/tau.py, TauTable.set.
local task_type, value = ARGV[1], ARGV[2]
local old = redis.call('HGET', P .. 'tau', task_type) or ARGV[3]
redis.call('HSET', P .. 'tau', task_type, value)
event('tau', '', 'type', task_type, 'tau_old', old, 'tau_new', value, 'reason', 'set by hand')
return old
