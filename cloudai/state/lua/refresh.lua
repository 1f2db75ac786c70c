-- What a scheduling process must know: the fleet's changes, tau, and the parameters if they are newer.
-- Contract: state/fleet.py, Fleet.refresh. ARGV: known fleet version, limit of rows,
-- known parameters version or '' when they are not asked for.
local parameters = redis.call('HMGET', P .. 'parameters', 'version', 'json')
local json = ''
if ARGV[3] ~= '' and parameters[1] and parameters[1] ~= ARGV[3] then json = parameters[2] end
return {NOW, changes(ARGV[1], tonumber(ARGV[2])), redis.call('HGETALL', P .. 'tau'), parameters[1] or '0', json,
        redis.call('GET', P .. 'fleet:version') or '0'}
