"""The application of the control process: `celery -A cloudai_beat.app worker -B -P solo -n control@%h`.

It needs no code of a project: Redis, MongoDB and the namespace come from the settings.
"""

from __future__ import annotations

from cloudai.app import CloudAI
from cloudai.settings import Settings
from cloudai_beat.control import Control, add_control


def build(settings: Settings | None = None) -> tuple[CloudAI, Control]:
    """A control application, and what it does."""
    app = CloudAI("cloudai-control", settings=settings, set_as_current=False)
    control = add_control(app)
    folder = control.folder

    def make_folder(**_: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    app.on_after_finalize.connect(make_folder, weak=False)
    app.conf.update(
        # A worker without -Q takes what is meant for it, and no task of anybody else.
        task_default_queue=control.queue,
        beat_schedule_filename=str(folder / "beat-schedule"),
        # Beat looks at its schedule at least so often, seconds.
        beat_max_loop_interval=min(60.0, app.settings.optimiser.epoch_interval_s),
        worker_prefetch_multiplier=1,
    )
    return app, control


app, control = build()
