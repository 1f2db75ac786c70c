-- The most urgent waiting tasks of each shape, and what changed in the fleet. Contract: state/ledger.py, Ledger.waiting.
-- ARGV: known fleet version, limit of rows, shapes at most, tasks at most for each shape and kind. The shapes come as one text:
-- a line `S shape request` and under it a line `T id deadline since priority hold` a task, fields apart by tabs.
local since, limit, shapes, each = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local out, seen = {}, {}

local function add(ids)
  for _, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      local v = redis.call('HMGET', task_key(id), 'deadline', 'since', 'priority', 'hold')
      out[#out + 1] = 'T\t' .. id .. '\t' .. v[1] .. '\t' .. v[2] .. '\t' .. (v[3] or '0') .. '\t' .. (v[4] or '')
    end
  end
end

-- The most urgent shapes; some whose deadline is still ahead; and some by chance, so that shapes which fit nowhere cannot hide
-- the others for ever.
local chosen, known = {}, {}
local function choose(list)
  for _, shape in ipairs(list) do
    if not known[shape] then
      known[shape] = true
      chosen[#chosen + 1] = shape
    end
  end
end
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
  add(redis.call('ZRANGE', key, now, '+inf', 'BYSCORE', 'LIMIT', 0, each))
  add(redis.call('ZRANGE', key, 0, each - 1))
end
return {NOW, redis.call('ZCARD', P .. 'waiting'), table.concat(out, '\n'), changes(since, limit)}
