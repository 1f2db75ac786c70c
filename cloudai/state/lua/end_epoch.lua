-- An epoch has ended: keep its report, let the next one begin. Contract: state/epochs.py, Epochs.end.
-- ARGV: token of the epoch, its outcome, its report (JSON), reports that are kept.
local mine = redis.call('HGET', P .. 'epoch', 'token') == ARGV[1]
if mine then redis.call('HDEL', P .. 'epoch', 'token', 'until') end
count('epochs')
count('epochs:' .. ARGV[2])
redis.call('LPUSH', P .. 'epochs', ARGV[3])
redis.call('LTRIM', P .. 'epochs', 0, tonumber(ARGV[4]) - 1)
return mine and 1 or 0
