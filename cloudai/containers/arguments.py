"""What each argument of a container job may be.

Every check returns its argument as the specification holds it, or raises InvalidRequest with the field, what was given
and what is allowed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudai.containers.allowlists import image_allowed, is_pinned, url_allowed, volume_allowed
from cloudai.scheduling.errors import InvalidRequest

#: Longest timeout that makes sense, in seconds: a year.
MAX_TIMEOUT_S = 366 * 86400.0

PULL_POLICIES = ("missing", "always", "never")
VOLUME_MODES = ("ro", "rw")

_REPOSITORY_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?:localhost|[a-z0-9.-]+\.[a-z0-9.-]+|[a-z0-9-]+(?=:[0-9]+/)|\[[0-9a-f:]+\])(?::[0-9]{{1,5}})?/)?"
    rf"{_REPOSITORY_PART}(?:/{_REPOSITORY_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,})?"
)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_STORE_URL = re.compile(r"(?:file://|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[^/\s%?#\\]+)+)/?")
_SECRET = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Volume:
    """One folder of the node, seen inside the container."""

    #: Absolute path on the node.
    host: str
    #: Absolute path inside the container.
    bind: str
    #: "ro" or "rw".
    mode: str


def checked_image(image: object, allowlist: Sequence[str], pinned: bool) -> str:
    """An image reference that the operator allows."""
    allowed = "an image reference in lower case (the tag may have capitals), such as debian:bookworm"
    name = _text("image", image, allowed)
    if len(name) > 512 or not _IMAGE.fullmatch(name):
        raise InvalidRequest("image", shown(name), allowed)
    if not image_allowed(name, allowlist):
        raise InvalidRequest("image", name, f"images that match one of {', '.join(allowlist)}")
    if pinned and not is_pinned(name):
        raise InvalidRequest("image", name, "an image named by its digest, name@sha256:... (node.images_pinned)")
    return name


def checked_command(command: object) -> tuple[str, ...] | None:
    """The words of a command; None: what the image says."""
    allowed = 'a list of strings, such as ["python", "-V"], or None for what the image says'
    if command is None:
        return None
    if not isinstance(command, (list, tuple)):
        raise InvalidRequest("command", shown(command), allowed)
    if not command or command[0] == "":
        raise InvalidRequest("command", shown(list(command)), f"{allowed}; not empty")
    return tuple(_text(f"command[{i}]", word, "a string") for i, word in enumerate(command))


def checked_environment(field: str, env: object) -> tuple[tuple[str, str], ...]:
    """Names and values of an environment, by name."""
    if env is None:
        return ()
    if not isinstance(env, Mapping):
        raise InvalidRequest(field, shown(env), "a mapping of names to strings")
    for name in env:
        allowed = "names that are not empty and have no '=' in them"
        _text(field, name, allowed)
        if not name or "=" in name:
            raise InvalidRequest(field, shown(name), allowed)
    return tuple(
        sorted((name, _text(f"{field}[{name!r}]", value, "a string")) for name, value in env.items())
    )


def checked_secrets(secrets: object) -> tuple[tuple[str, str], ...]:
    """Names and references, by name."""
    pairs = checked_environment("secrets", secrets)
    for name, reference in pairs:
        if not _SECRET.fullmatch(reference):
            # The value may be a secret that was given by mistake in place of a reference: never show it.
            raise InvalidRequest(
                f"secrets[{name!r}]",
                "something that is not a reference",
                '"env:NAME" or "file:/absolute/path", to be read on the node',
            )
    return pairs


def checked_path(field: str, path: object) -> str:
    """An absolute path, normalised."""
    allowed = "an absolute path, such as /data"
    text = _text(field, path, allowed)
    if not text.startswith("/") or ":" in text:
        raise InvalidRequest(field, shown(text), f"{allowed}, without a colon")
    # Two leading slashes survive normpath, by POSIX's leave; here they are one.
    return posixpath.normpath("/" + text.lstrip("/"))


def checked_user(user: object) -> str:
    """A user, with a group or without."""
    allowed = "a user such as nobody, 1000, nobody:nogroup or 1000:1000"
    name = _text("user", user, allowed)
    if not _USER.fullmatch(name):
        raise InvalidRequest("user", shown(name), allowed)
    return name


def checked_volumes(volumes: object, allowlist: Sequence[str]) -> tuple[Volume, ...]:
    """Folders of the node that the operator allows, each once, and each at a place of its own."""
    shape = '{"/on/the/node": {"bind": "/in/the/container", "mode": "ro" or "rw"}}'
    if volumes is None:
        return ()
    if not isinstance(volumes, Mapping):
        raise InvalidRequest("volumes", shown(volumes), shape)
    checked: list[Volume] = []
    for host, how in volumes.items():
        path = checked_path("volumes", host)
        field = f"volumes[{path!r}]"
        if not isinstance(how, Mapping) or not set(how) <= {"bind", "mode"} or "bind" not in how:
            raise InvalidRequest(field, shown(how), shape)
        bind = checked_path(f"{field}.bind", how["bind"])
        if bind == "/":
            raise InvalidRequest(f"{field}.bind", bind, "a folder below / in the container")
        if any(bind == other.bind for other in checked):
            raise InvalidRequest(f"{field}.bind", bind, "a different place in the container for each volume")
        if any(path == other.host for other in checked):
            raise InvalidRequest("volumes", path, "each folder of the node once")
        mode = one_of(f"{field}.mode", how.get("mode", "ro"), VOLUME_MODES)
        if not volume_allowed(path, mode, allowlist):
            raise InvalidRequest("volumes", f"{path} ({mode})", _allowlist_text(allowlist))
        checked.append(Volume(path, bind, mode))
    return tuple(checked)


def checked_folders(field: str, folders: object, allowlist: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Folders of the container and their URLs in a store that the operator allows, by folder."""
    shape = '{"/in/the/container": "file:///folder" or "s3://bucket/prefix"}'
    if folders is None:
        return ()
    if not isinstance(folders, Mapping):
        raise InvalidRequest(field, shown(folders), shape)
    checked: list[tuple[str, str]] = []
    for given, url in folders.items():
        path = checked_path(field, given)
        if path == "/" or ".." in given.split("/"):
            raise InvalidRequest(field, shown(given), "a folder below / in the container, without '..'")
        if any(path == other for other, _ in checked):
            raise InvalidRequest(field, path, "each folder of the container once")
        checked.append((path, _store_url(f"{field}[{path!r}]", url, allowlist)))
    return tuple(sorted(checked))


def _store_url(field: str, url: object, allowlist: Sequence[str]) -> str:
    allowed = "file:///folder or s3://bucket/prefix, without blanks, '%', '?', '#' and '..'"
    text = _text(field, url, allowed)
    if "@" in text.partition("://")[2].partition("/")[0]:
        # A key and its secret, perhaps: never show it.
        raise InvalidRequest(field, "a URL with '@' in front of its path", f"{allowed}; credentials are the node's own")
    found = _STORE_URL.fullmatch(text)
    if not found or not text.isprintable() or {".", ".."} & set(found[1].split("/")):
        raise InvalidRequest(field, shown(text), allowed)
    text = text.rstrip("/")
    if not url_allowed(text, allowlist):
        listed = f"URLs that match one of {', '.join(allowlist)} (stores_allowlist)"
        none = "no URL, because the operator's allowlist (stores_allowlist) is empty"
        raise InvalidRequest(field, text, listed if allowlist else none)
    return text


def _allowlist_text(allowlist: Sequence[str]) -> str:
    if not allowlist:
        return "no volume, because the operator's allowlist (volumes_allowlist) is empty"
    return f"folders in the operator's allowlist: {', '.join(allowlist)}"


def checked_network(network: object, allowlist: Sequence[str]) -> str:
    """A network that the operator allows."""
    choices = ("none", "bridge", *allowlist)
    if not isinstance(network, str) or network not in choices or not _NETWORK.fullmatch(network):
        raise InvalidRequest("network", shown(network), f"one of {', '.join(choices)}")
    return network


def checked_timeout(timeout: object) -> float:
    """Seconds."""
    allowed = f"a number of seconds above 0 and at most {MAX_TIMEOUT_S:.0f}"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InvalidRequest("timeout", shown(timeout), allowed)
    if not 0 < timeout <= MAX_TIMEOUT_S:  # false for NaN too
        raise InvalidRequest("timeout", shown(timeout), allowed)
    return float(timeout)


def shown(value: object) -> str:
    """The value as the error message shows it; also a value that JSON cannot hold, and never a long one."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 200 else text[:200] + "..."


def _text(field: str, value: object, allowed: str) -> str:
    """A string that the kernel can take: no NUL, and encodable (no lone surrogate)."""
    if not isinstance(value, str):
        raise InvalidRequest(field, shown(value), allowed)
    if "\0" in value:
        raise InvalidRequest(field, shown(value), f"{allowed}, without a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field, shown(value), f"{allowed}, without lone surrogates") from None
    return value


def one_of(field: str, value: object, choices: tuple[str, ...]) -> str:
    """One of the words."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidRequest(field, shown(value), f"one of {', '.join(choices)}")
    return value
