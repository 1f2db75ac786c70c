"""The control process: beat sends the epoch's task, this worker runs it, and beside it keeps the history and the file.

    celery -A cloudai_beat.app worker -B -P solo -n control@%h

Everything here may run twice at once: epochs take turns by a lease in Redis, recording is idempotent, and publications
go over the version that they saw.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis
from celery import signals

from cloudai.app import CloudAI
from cloudai.deployment import Deployment
from cloudai.history.recorder import Recorder
from cloudai.history.store import HistoryStore
from cloudai.names import EPOCH_TASK, control_queue
from cloudai_beat.contention import load_library
from cloudai_beat.epoch import run_epoch
from cloudai_beat.publishing import FILE, ParametersExport, control_folder
from cloudai_beat.report import EpochReport
from cloudai_beat.searching import Search

logger = logging.getLogger(__name__)

#: Time between two looks at the event stream, and at the parameters' file, seconds.
RECORD_EVERY_S = 1.0
LOOK_EVERY_S = 2.0
#: How long the keeper has to end, seconds.
_STOP_TIMEOUT_S = 10.0
#: Entry point of the search that the epoch runs, if there is one: its name in the group SEARCH.
SEARCH_GROUP, SEARCH_NAME = "cloudai.search", "genetic"
#: Name of our entry in beat's schedule.
ENTRY = "cloudai-epoch"

_PR_SET_PDEATHSIG = 1


def find_search() -> Search | None:
    """The search that is installed, or None."""
    for found in importlib.metadata.entry_points(group=SEARCH_GROUP, name=SEARCH_NAME):
        search: Search = found.load()
        return search
    return None


def epoch_now(deployment: Deployment, *, trigger: str, may_publish: bool = True) -> EpochReport:
    """Record what has happened, then run one epoch, in this process. Raises RedisError."""
    with HistoryStore.from_settings(deployment.settings) as store:
        recorder = Recorder(deployment, store)
        recorder.record_once()
        report = run_epoch(deployment, store, search=find_search(), trigger=trigger, may_publish=may_publish)
        recorder.record_once()
        return report


class Keeper:
    """The thread that records the history, and exports and watches the parameters' file."""

    def __init__(self, deployment: Deployment, recorder: Recorder, file: ParametersExport) -> None:
        self._recorder = recorder
        self._file = file
        self._deployment = deployment
        self._stopping = threading.Event()
        #: What went wrong the last time that a piece of work was tried, by its name; "": it went well.
        self._problems: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="cloudai-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being done now."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        self._tried("library", load_library)
        turn = 0
        while not self._stopping.wait(RECORD_EVERY_S):
            self._tried("history", self._recorder.record_once)
            turn += 1
            if turn % round(LOOK_EVERY_S / RECORD_EVERY_S) == 0:
                self._tried("file", self._file.look)

    def _tried(self, what: str, work: Callable[[], object]) -> None:
        """Do a piece of work; whatever goes wrong is told once, until it has gone well again, and tried again."""
        try:
            work()
        except redis.RedisError as error:
            self._tell("redis-away", what, error)
        except Exception as error:
            self._tell("keeper-failed", what, error, defect=True)
        else:
            self._problems[what] = ""

    def _tell(self, event: str, what: str, error: Exception, *, defect: bool = False) -> None:
        problem = f"{event} work={what}: it is tried again. {type(error).__name__}: {error}"
        if problem != self._problems.get(what):
            logger.error("%s", problem, exc_info=defect)
            self._problems[what] = problem


class Control:
    """What makes the worker of an application the control process of its deployment."""

    def __init__(self, app: CloudAI) -> None:
        self.app = app
        self.queue = control_queue(app.settings.redis.namespace)
        self._lock = threading.Lock()
        self._store: HistoryStore | None = None
        self._recorder: Recorder | None = None
        self._keeper: Keeper | None = None

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return control_folder(self.app.settings)

    @property
    def schedule(self) -> Mapping[str, Any]:
        """Our part of `beat_schedule`."""
        interval = self.app.settings.optimiser.epoch_interval_s
        # What nobody took in time is worth nothing: the next one is due.
        options = {"queue": self.queue, "expires": interval}
        return {ENTRY: {"task": EPOCH_TASK, "schedule": interval, "options": options}}

    def epoch(self) -> EpochReport:
        """The task: record what is in the stream, then run an epoch."""
        recorder, store = self._history()
        recorder.record_once()
        return run_epoch(self.app.deployment, store, search=find_search(), trigger="beat", at_intervals=True)

    def epoch_as_asked(self, trigger: str) -> EpochReport:
        """An epoch that somebody asked for, whenever the last one was."""
        recorder, store = self._history()
        recorder.record_once()
        return run_epoch(self.app.deployment, store, search=find_search(), trigger=trigger)

    def merge_schedule(self) -> None:
        """Put our entry beside those of the project; beat drops what the configuration does not hold when it starts."""
        if self.app.settings.optimiser.enabled:
            self.app.conf.beat_schedule = {**(self.app.conf.beat_schedule or {}), **self.schedule}

    def start(self) -> None:
        """The worker takes tasks: begin to record and to watch."""
        if self._keeper is not None:
            return
        recorder, _ = self._history()
        deployment = self.app.deployment
        file = ParametersExport(self.folder / FILE, deployment.parameters)
        self._keeper = Keeper(deployment, recorder, file)
        self._keeper.start()
        logger.info("control-started namespace=%s folder=%s", self.app.settings.redis.namespace, self.folder)

    def stop(self) -> None:
        """The worker ends."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
        if self._store is not None:
            self._store.close()

    def _history(self) -> tuple[Recorder, HistoryStore]:
        with self._lock:
            if self._store is None or self._recorder is None:
                self._store = HistoryStore.from_settings(self.app.settings)
                self._recorder = Recorder(self.app.deployment, self._store)
            return self._recorder, self._store


def add_control(app: CloudAI) -> Control:
    """Let a worker of `app` that consumes the control queue be the control process. Once for each application.

    `celery -A yours worker -B -P solo --no-node -Q NAMESPACE.control` then runs the epoch beside your own beat entries.
    """
    control = Control(app)

    @app.task(name=EPOCH_TASK, shared=False, ignore_result=True)
    def epoch(trigger: str = "beat") -> None:
        if trigger == "beat":
            control.epoch()
        else:
            control.epoch_as_asked(trigger)

    # Kept alive by `weak=False`: nobody else holds them.
    def finalized(**_: Any) -> None:
        control.merge_schedule()

    def worker_begins(instance: Any = None, **_: Any) -> None:
        if instance is not None and instance.app is app:
            # Once more: a project may have set its own schedule since.
            control.merge_schedule()

    def ready(sender: Any = None, **_: Any) -> None:
        if sender is not None and sender.app is app and control.queue in app.amqp.queues.consume_from:
            control.start()

    def ends(**_: Any) -> None:
        control.stop()

    app.on_after_finalize.connect(finalized, weak=False)
    if app.finalized:
        control.merge_schedule()
    signals.celeryd_init.connect(worker_begins, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutdown.connect(ends, weak=False)
    return control


@signals.beat_embedded_init.connect
def _end_with_worker(**_: Any) -> None:
    """Beat of `-B` is a process of its own: it must not outlive a worker that is killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
