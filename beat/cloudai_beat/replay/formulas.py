"""The formulas of cloudai.scheduling.formula, compiled: the same source, never written again."""

from __future__ import annotations

from cloudai.scheduling import dispatch_order, formula, learning

from .compiled import compiled, known

contention = compiled(formula.contention)
runtime_weights = compiled(formula.runtime_weights)
lateness = compiled(formula.lateness)
base_risk = compiled(formula.base_risk)
placement_offset = compiled(formula.placement_offset)
reserved_share = compiled(formula.reserved_share)
take_devices = compiled(formula.take_devices)
for function in (formula.learned_tau, formula.learned_variance):
    known(function)
after_sample = compiled(learning.after_sample)
foretells = compiled(learning.foretells)
affinity_score = compiled(formula.affinity_score)
penalty_score = compiled(formula.penalty_score)
can_make_it = compiled(dispatch_order.can_make_it)
urgency = compiled(dispatch_order.urgency)
most_kept = compiled(dispatch_order.most_kept)
waited_too_long = compiled(dispatch_order.waited_too_long)
SAME = formula.SAME
