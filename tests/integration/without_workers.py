"""A deployment whose nodes are only registered: tasks are placed there, and nothing runs them."""

from __future__ import annotations

from cloudai import CloudAI
from cloudai.settings import LimitSettings, RedisSettings, Settings
from cloudai.state.fleet import NodeCapacity


def make_app(redis_url: str, **limits: int) -> CloudAI:
    """An application that submits to it."""
    settings = Settings.load(redis=RedisSettings(url=redis_url), limits=LimitSettings(**limits))
    app = CloudAI("without-workers", settings=settings, broker=redis_url, set_as_current=False)
    app.conf.task_ignore_result = True
    return app


def end(app: CloudAI) -> None:
    """Close every connection that the application has opened."""
    app.deployment.client.close()
    app.pool.force_close_all()
    app.close()


def join(app: CloudAI, name: str, cpu: int = 100_000, slots: int = 10_000) -> None:
    """Register a node; `cpu` in thousandths of a core."""
    app.deployment.fleet.register(
        name, "1", NodeCapacity(cpu, 1 << 30, 0, 0, slots), labels={}, timeout_s=600, lease_s=6000, pressure=0.0,
        max_attempts=3, finished_ttl_s=60, shown={},
    )  # fmt: skip
