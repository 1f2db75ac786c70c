"""Which application a command works for, and what to say when its Redis does not answer.

That of `-A/--app` or CLOUDAI_APP; else the project's under `celery -A proj cloudai X`; else the ready-made.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

import click

from cloudai.scheduling.errors import InvalidRequest

if TYPE_CHECKING:
    from cloudai.app import CloudAI
    from cloudai.deployment import Deployment

#: Where a context keeps the application once it is known.
_APP = "cloudai.app"

_WHERE_SET = "redis.url (CLOUDAI_REDIS__URL or cloudai.toml)"

_PASSWORD = re.compile(r"(://[^/@\s]*?:)[^/@\s]+@")


def application(ctx: click.Context) -> CloudAI:
    """The application, loaded when first asked for.

    Raises:
        InvalidRequest: the module cannot be imported, or what it holds is no CloudAI application.
        ConfigurationError: a setting is wrong.
    """
    if _APP not in ctx.meta:
        ctx.meta[_APP] = _load(ctx)
    app: CloudAI = ctx.meta[_APP]
    return app


def deployment(ctx: click.Context) -> Deployment:
    """State and scheduling of the application; errors as for `application`."""
    return application(ctx).deployment


def connection_advice(ctx: click.Context, error: Exception) -> str | None:
    """What to tell a user when Redis did not answer, or would not; None when the error is something else."""
    import redis
    from kombu.exceptions import OperationalError

    if not isinstance(error, (redis.RedisError, OperationalError)):
        return None
    app = ctx.meta.get(_APP)
    url = masked(app.deployment.settings.redis.url) if app is not None else "the configured URL"
    reason = str(error).rstrip(".") or type(error).__name__
    if isinstance(error, redis.AuthenticationError):
        return f"Redis at {url} refuses the password ({reason}). Correct {_WHERE_SET}."
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, OperationalError)):
        return (
            f"Redis at {url} does not answer ({reason}). Start it, or set {_WHERE_SET} to the one that your "
            "nodes use; `cloudai up` starts one with nodes on this machine."
        )
    return f"Redis at {url} refuses the command ({reason}). `cloudai doctor` checks the server."


def masked(url: str) -> str:
    """The URL, or several of a Sentinel, without passwords."""
    return _PASSWORD.sub(r"\1***@", url)


def _load(ctx: click.Context) -> CloudAI:
    path = ctx.meta.get("cloudai.app_path")
    if path:
        return _checked(_by_path(path), path)
    of_celery = getattr(ctx.obj, "app", None)
    # Where no `-A` is given, Celery's program makes up an application that is called "default".
    if of_celery is not None and of_celery.main != "default":
        return _checked(of_celery, "the application of `celery -A`")
    ready_made: CloudAI = importlib.import_module("cloudai.celery").app
    return ready_made


def _by_path(path: str) -> Any:
    from celery.app.utils import find_app

    from cloudai.settings import ConfigurationError

    try:
        return find_app(path)
    except (ImportError, AttributeError, ValueError) as error:
        # kombu's importer wraps a ValueError, as one about a setting is.
        if isinstance(error.__context__, ConfigurationError):
            raise error.__context__ from None
        allowed = f"MODULE or MODULE:NAME of an application that can be imported here ({error})"
        raise InvalidRequest("app", path, allowed) from error


def _checked(app: Any, where: str) -> CloudAI:
    from cloudai.app import CloudAI

    if not isinstance(app, CloudAI):
        kind = f"{type(app).__module__}.{type(app).__qualname__}"
        raise InvalidRequest("app", where, f"a cloudai.CloudAI application; this is a {kind}")
    return app
