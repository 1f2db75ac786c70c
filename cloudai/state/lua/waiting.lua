-- A look at the waiting set. Contract: state/ledger.py, Ledger.waiting.
-- ARGV: known fleet version, limit of rows, shapes at most, tasks at most for each shape and kind.
return look(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
