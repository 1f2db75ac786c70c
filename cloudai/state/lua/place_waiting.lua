-- Place waiting tasks. Contract: state/ledger.py, Ledger.place_waiting.
-- ARGV: a JSON list of known fleet version, limit of rows, decision ttl, the proposals (as for place_proposal) and the
-- times of the decisions (as for count_times); then the
-- decision record of each proposal.
local a = cjson.decode(ARGV[1])
local since, limit, ttl = a[1], a[2], a[3]
count_times(a[5])
local results = {}
for p, proposal in ipairs(a[4]) do results[p] = place_proposal(proposal, ARGV[p + 1], ttl) end
return {NOW, results, changes(since, limit)}
