"""How the history can fail. Scheduling never depends on it: the event stream in Redis keeps what is not recorded yet.

All are HistoryError: HistoryUnavailable (MongoDB cannot be reached, refuses the login, or pymongo is missing) and
HistoryReadOnly (it answers, but refuses to write).
"""

from __future__ import annotations

from cloudai.scheduling.errors import CloudAIError


class HistoryError(CloudAIError):
    """MongoDB refused what the history asked of it."""


class HistoryUnavailable(HistoryError):
    """MongoDB cannot be reached: start it, or correct optimiser.mongo_url."""


class HistoryReadOnly(HistoryError):
    """MongoDB refuses to write: give the user of optimiser.mongo_url the role readWrite on the database."""
