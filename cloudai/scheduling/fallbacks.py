"""Why Round-Robin decided in place of the scheduler (spec section 5); records and metrics use these names."""

from __future__ import annotations

#: there are no parameters that can be used
NO_PARAMETERS = "no_parameters"
#: no feasible node's load is known
NO_USABLE_TELEMETRY = "no_usable_telemetry"
#: the best score is NaN or infinite
NOT_FINITE = "not_finite"
#: the scheduler raised, or ranked something that it must not
INTERNAL_ERROR = "internal_error"
#: too many fallbacks: Round-Robin decides until the cause is gone or an operator resets
FALLBACK_LIMIT = "fallback_limit"
