-- The most urgent waiting tasks of each shape, and what changed in the fleet. Contract: state/ledger.py, Ledger.waiting.
-- ARGV: known fleet version, limit of rows, shapes at most, tasks at most for each shape and kind.
local since, limit, shapes, each = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local out, seen = {}, {}

local function add(tasks, ids)
  for _, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      local v = redis.call('HMGET', task_key(id), 'deadline', 'since', 'priority', 'hold')
      tasks[#tasks + 1] = {id, v[1], v[2], v[3] or '0', v[4] or ''}
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
  local key, tasks = P .. 'waiting:shape:' .. shape, {}
  -- Some of those whose deadline is still ahead, and some of the oldest: late ones must not hide the others.
  add(tasks, redis.call('ZRANGE', key, now, '+inf', 'BYSCORE', 'LIMIT', 0, each))
  add(tasks, redis.call('ZRANGE', key, 0, each - 1))
  out[#out + 1] = {shape, redis.call('GET', P .. 'waiting:request:' .. shape) or '', tasks}
end
return {NOW, redis.call('ZCARD', P .. 'waiting'), out, changes(since, limit)}
