-- What a scheduling process must know: the fleet's changes, tau, and the parameters if they are newer.
-- Contract: state/fleet.py, Fleet.refresh. ARGV: known fleet version, limit of rows,
-- known parameters version or '' when they are not asked for, and the version up to which the families' tau is known.
local parameters = redis.call('HMGET', P .. 'parameters', 'version', 'json')
local json = ''
if ARGV[3] ~= '' and parameters[1] and parameters[1] ~= ARGV[3] then json = parameters[2] end
local families = {}
local changed = redis.call('ZRANGE', P .. 'tau:changed', '(' .. ARGV[4], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
for i = 1, #changed, 2 do
  families[#families + 1] = changed[i + 1] .. ' ' .. redis.call('HGET', P .. 'tau:families', changed[i]) .. ' ' .. changed[i]
end
return {NOW, changes(ARGV[1], tonumber(ARGV[2])), redis.call('HGETALL', P .. 'tau'), parameters[1] or '0', json,
        redis.call('GET', P .. 'fleet:version') or '0', families}
