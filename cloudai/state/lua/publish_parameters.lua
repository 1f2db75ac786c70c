-- Put parameters in force. Contract: state/parameters.py, ParameterStore.publish.
-- ARGV: json, source, version that must be in force now or '', '1' where nobody asked for it, earlier versions that are kept.
local key = P .. 'parameters'
local known = redis.call('HMGET', key, 'version', 'json', 'source', 'published', 'pinned')
local version = tonumber(known[1] or '0')
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= version then return {0, version} end
if ARGV[4] == '1' and known[5] then return {0, version} end
if known[2] then
  local past = cjson.encode({version = version, json = known[2], source = known[3], published = tonumber(known[4])})
  redis.call('LPUSH', key .. ':past', past)
  redis.call('LTRIM', key .. ':past', 0, tonumber(ARGV[5]) - 1)
end
version = version + 1
redis.call('HSET', key, 'version', version, 'json', ARGV[1], 'source', ARGV[2], 'published', NOW)
-- The speed of each pair, for finish: tau is the runtime on a reference node.
redis.call('DEL', P .. 'speed')
for kind, row in pairs(cjson.decode(ARGV[1]).speed or {}) do
  for node, s in pairs(row) do redis.call('HSET', P .. 'speed', kind .. ':' .. node, string.format('%.17g', s)) end
end
event('parameters', '', 'version', version, 'source', ARGV[2], 'json', ARGV[1])
return {1, version}
