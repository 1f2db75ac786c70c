"""The ready-made application: `celery -A cloudai worker` is a node, `celery -A cloudai flower` watches it."""

from __future__ import annotations

import cloudai.container_task  # noqa: F401 - registers the task
from cloudai.app import CloudAI

app = CloudAI("cloudai", node_by_default=True)
