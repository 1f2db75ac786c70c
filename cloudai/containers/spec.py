"""What a submitter may ask of a container, checked before anything is written anywhere.

The same checks run twice: at submission, with what the producer's configuration allows, and on the node,
with what the node's operator allows, because the submitter's word is not enough.
"""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudai.scheduling.errors import InvalidRequest

#: Most bytes that the arguments of a job may take as JSON, unless configured otherwise.
DEFAULT_MAX_ARGUMENT_BYTES = 64 * 1024
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


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A checked container job. Make one with `validate_container`."""

    #: Image reference, as the engine takes it.
    image: str
    #: Command and its arguments; None runs what the image says.
    command: tuple[str, ...] | None
    #: Environment, as (name, value), sorted by name.
    env: tuple[tuple[str, str], ...]
    #: Secrets, as (environment name, reference), sorted by name; only the node reads what they refer to.
    secrets: tuple[tuple[str, str], ...]
    #: Working directory inside the container; None is the image's own.
    workdir: str | None
    #: User inside the container, "name", "uid" or "user:group"; None is the image's own.
    user: str | None
    #: Folders of the node to mount.
    volumes: tuple[Volume, ...]
    #: Folders that are fetched before it starts, as (path in the container, URL), sorted by path.
    inputs: tuple[tuple[str, str], ...]
    #: Folders that are kept once it has succeeded, as (path in the container, URL), sorted by path.
    outputs: tuple[tuple[str, str], ...]
    #: "none", "bridge" or a network that the operator allows.
    network: str
    #: Longest run in seconds, pauses not counted; None is without limit.
    timeout: float | None
    #: When to fetch the image: "missing", "always" or "never".
    pull: str

    def to_kwargs(self) -> dict[str, Any]:
        """Plain JSON keyword arguments that `validate_container` takes; defaults are left out."""
        kwargs: dict[str, Any] = {"image": self.image}
        if self.command is not None:
            kwargs["command"] = list(self.command)
        if self.env:
            kwargs["env"] = dict(self.env)
        if self.secrets:
            kwargs["secrets"] = dict(self.secrets)
        if self.volumes:
            kwargs["volumes"] = {v.host: {"bind": v.bind, "mode": v.mode} for v in self.volumes}
        if self.inputs:
            kwargs["inputs"] = dict(self.inputs)
        if self.outputs:
            kwargs["outputs"] = dict(self.outputs)
        for name, default in (("workdir", None), ("user", None), ("timeout", None)):
            if getattr(self, name) is not default:
                kwargs[name] = getattr(self, name)
        if self.network != "none":
            kwargs["network"] = self.network
        if self.pull != "missing":
            kwargs["pull"] = self.pull
        return kwargs

    @classmethod
    def from_kwargs(
        cls,
        kwargs: Mapping[str, Any],
        *,
        volumes_allowlist: Sequence[str] = (),
        stores_allowlist: Sequence[str] = (),
        networks_allowlist: Sequence[str] = (),
        images_allowlist: Sequence[str] = (),
        images_pinned: bool = False,
        max_argument_bytes: int = DEFAULT_MAX_ARGUMENT_BYTES,
    ) -> ContainerSpec:
        """The specification from a message's keyword arguments, checked as `validate_container` does.

        Raises:
            InvalidRequest: as `validate_container`, and for a keyword that is not one of its arguments.

        """
        unknown = sorted(str(name) for name in kwargs if name not in _ARGUMENTS)
        if unknown:
            raise InvalidRequest(unknown[0], _shown(kwargs[unknown[0]]), f"one of {', '.join(_ARGUMENTS)}")
        if "image" not in kwargs:
            raise InvalidRequest("image", None, "the name of an image, such as debian:bookworm")
        return validate_container(
            **kwargs,
            volumes_allowlist=volumes_allowlist,
            stores_allowlist=stores_allowlist,
            networks_allowlist=networks_allowlist,
            images_allowlist=images_allowlist,
            images_pinned=images_pinned,
            max_argument_bytes=max_argument_bytes,
        )


_ARGUMENTS = (
    "image",
    "command",
    "env",
    "secrets",
    "workdir",
    "user",
    "volumes",
    "inputs",
    "outputs",
    "network",
    "timeout",
    "pull",
)


def validate_container(
    image: str,
    command: Sequence[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    volumes: Mapping[str, Mapping[str, str]] | None = None,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    network: str = "none",
    timeout: float | None = None,
    pull: str = "missing",
    volumes_allowlist: Sequence[str] = (),
    stores_allowlist: Sequence[str] = (),
    networks_allowlist: Sequence[str] = (),
    images_allowlist: Sequence[str] = (),
    images_pinned: bool = False,
    max_argument_bytes: int = DEFAULT_MAX_ARGUMENT_BYTES,
) -> ContainerSpec:
    """Check a container job and return it as a value.

    Args:
        image: image reference, lower case but for the tag.
        command: words of the command; a plain string is refused, because it would have to be split.
        env: environment of the container.
        secrets: environment name -> "env:NAME" or "file:/path", read on the node that runs the job.
        workdir: absolute path inside the container.
        user: "name", "uid", "name:group" or "uid:gid".
        volumes: {"/on/the/node": {"bind": "/in/the/container", "mode": "ro" or "rw"}}; "ro" if left out.
        inputs: {"/in/the/container": URL}: the folder at the URL is there, for reading, when the job starts.
        outputs: {"/in/the/container": URL}: what the job leaves there is kept at the URL once it has succeeded.
        network: "none", "bridge" or one of `networks_allowlist`.
        timeout: seconds, above 0.
        pull: "missing", "always" or "never".
        volumes_allowlist: folders that may be mounted, with all below them; "/folder:ro" for reading only.
        stores_allowlist: patterns of URLs for `inputs` and `outputs`, such as "file:///srv/cloudai/*".
        networks_allowlist: names of further networks.
        images_allowlist: patterns such as "registry.example.com/team/*"; empty allows every image.
        images_pinned: only images named by their digest may run.
        max_argument_bytes: most bytes that all of this may take as JSON.

    Raises:
        InvalidRequest: naming the field, what was given and what is allowed.

    """
    spec = ContainerSpec(
        image=_image(image, images_allowlist, images_pinned),
        command=_command(command),
        env=_environment("env", env),
        secrets=_secrets(secrets),
        workdir=None if workdir is None else _absolute_path("workdir", workdir),
        user=None if user is None else _user(user),
        volumes=_volumes(volumes, volumes_allowlist),
        inputs=_stored("inputs", inputs, stores_allowlist),
        outputs=_stored("outputs", outputs, stores_allowlist),
        network=_network(network, networks_allowlist),
        timeout=None if timeout is None else _timeout(timeout),
        pull=_one_of("pull", pull, PULL_POLICIES),
    )
    _refuse_same_name_twice(spec)
    _refuse_one_place_twice(spec)
    size = len(json.dumps(spec.to_kwargs(), ensure_ascii=False).encode())
    if size > max_argument_bytes:
        raise InvalidRequest(
            "arguments",
            f"{size} bytes",
            f"at most {max_argument_bytes} bytes as JSON; put large data in a volume or in the image",
        )
    return spec


def image_allowed(image: str, allowlist: Sequence[str]) -> bool:
    """Whether an image matches one of the operator's patterns; an empty list allows every image."""
    return not allowlist or any(fnmatch.fnmatchcase(image, pattern) for pattern in allowlist)


def is_pinned(image: str) -> bool:
    """Whether an image is named by its content: a tag can be moved to another one, a digest cannot."""
    return "@sha256:" in image


def volume_allowed(path: str, mode: str, allowlist: Iterable[str]) -> bool:
    """Whether a normalised absolute path lies in an allowed folder ("/folder:ro" allows reading only)."""
    for entry in allowlist:
        folder, read_only = (entry[:-3], True) if entry.endswith(":ro") else (entry, False)
        folder = posixpath.normpath(folder)
        inside = path == folder or path.startswith(folder.rstrip("/") + "/")
        if inside and (mode == "ro" or not read_only):
            return True
    return False


def url_allowed(url: str, allowlist: Iterable[str]) -> bool:
    """Whether a URL of a store matches one of the operator's patterns; an empty list allows none."""
    return any(fnmatch.fnmatchcase(url, pattern) for pattern in allowlist)


def _shown(value: object) -> str:
    """The value as the error message shows it; also a value that JSON cannot hold, and never a long one."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 200 else text[:200] + "..."


def _text(field: str, value: object, allowed: str) -> str:
    """A string that the kernel can take: no NUL, and encodable (no lone surrogate)."""
    if not isinstance(value, str):
        raise InvalidRequest(field, _shown(value), allowed)
    if "\0" in value:
        raise InvalidRequest(field, _shown(value), f"{allowed}, without a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field, _shown(value), f"{allowed}, without lone surrogates") from None
    return value


def _one_of(field: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise InvalidRequest(field, _shown(value), f"one of {', '.join(choices)}")
    return value


def _image(image: object, allowlist: Sequence[str], pinned: bool) -> str:
    allowed = "an image reference in lower case (the tag may have capitals), such as debian:bookworm"
    name = _text("image", image, allowed)
    if len(name) > 512 or not _IMAGE.fullmatch(name):
        raise InvalidRequest("image", _shown(name), allowed)
    if not image_allowed(name, allowlist):
        raise InvalidRequest("image", name, f"images that match one of {', '.join(allowlist)}")
    if pinned and not is_pinned(name):
        raise InvalidRequest("image", name, "an image named by its digest, name@sha256:... (node.images_pinned)")
    return name


def _command(command: object) -> tuple[str, ...] | None:
    allowed = 'a list of strings, such as ["python", "-V"], or None for what the image says'
    if command is None:
        return None
    if not isinstance(command, (list, tuple)):
        raise InvalidRequest("command", _shown(command), allowed)
    if not command or command[0] == "":
        raise InvalidRequest("command", _shown(list(command)), f"{allowed}; not empty")
    return tuple(_text(f"command[{i}]", word, "a string") for i, word in enumerate(command))


def _environment(field: str, env: object) -> tuple[tuple[str, str], ...]:
    if env is None:
        return ()
    if not isinstance(env, Mapping):
        raise InvalidRequest(field, _shown(env), "a mapping of names to strings")
    for name in env:
        allowed = "names that are not empty and have no '=' in them"
        _text(field, name, allowed)
        if not name or "=" in name:
            raise InvalidRequest(field, _shown(name), allowed)
    return tuple(
        sorted((name, _text(f"{field}[{name!r}]", value, "a string")) for name, value in env.items())
    )


def _secrets(secrets: object) -> tuple[tuple[str, str], ...]:
    pairs = _environment("secrets", secrets)
    for name, reference in pairs:
        if not _SECRET.fullmatch(reference):
            # The value may be a secret that was given by mistake in place of a reference: never show it.
            raise InvalidRequest(
                f"secrets[{name!r}]",
                "something that is not a reference",
                '"env:NAME" or "file:/absolute/path", to be read on the node',
            )
    return pairs


def _refuse_same_name_twice(spec: ContainerSpec) -> None:
    secret_names = {name for name, _ in spec.secrets}
    for name, _ in spec.env:
        if name in secret_names:
            raise InvalidRequest("env", name, "a name that is in env or in secrets, not in both")


def _absolute_path(field: str, path: object) -> str:
    allowed = "an absolute path, such as /data"
    text = _text(field, path, allowed)
    if not text.startswith("/") or ":" in text:
        raise InvalidRequest(field, _shown(text), f"{allowed}, without a colon")
    # Two leading slashes survive normpath, by POSIX's leave; here they are one.
    return posixpath.normpath("/" + text.lstrip("/"))


def _user(user: object) -> str:
    allowed = "a user such as nobody, 1000, nobody:nogroup or 1000:1000"
    name = _text("user", user, allowed)
    if not _USER.fullmatch(name):
        raise InvalidRequest("user", _shown(name), allowed)
    return name


def _volumes(volumes: object, allowlist: Sequence[str]) -> tuple[Volume, ...]:
    shape = '{"/on/the/node": {"bind": "/in/the/container", "mode": "ro" or "rw"}}'
    if volumes is None:
        return ()
    if not isinstance(volumes, Mapping):
        raise InvalidRequest("volumes", _shown(volumes), shape)
    checked: list[Volume] = []
    for host, how in volumes.items():
        path = _absolute_path("volumes", host)
        field = f"volumes[{path!r}]"
        if not isinstance(how, Mapping) or not set(how) <= {"bind", "mode"} or "bind" not in how:
            raise InvalidRequest(field, _shown(how), shape)
        bind = _absolute_path(f"{field}.bind", how["bind"])
        if bind == "/":
            raise InvalidRequest(f"{field}.bind", bind, "a folder below / in the container")
        if any(bind == other.bind for other in checked):
            raise InvalidRequest(f"{field}.bind", bind, "a different place in the container for each volume")
        if any(path == other.host for other in checked):
            raise InvalidRequest("volumes", path, "each folder of the node once")
        mode = _one_of(f"{field}.mode", how.get("mode", "ro"), VOLUME_MODES)
        if not volume_allowed(path, mode, allowlist):
            raise InvalidRequest("volumes", f"{path} ({mode})", _allowlist_text(allowlist))
        checked.append(Volume(path, bind, mode))
    return tuple(checked)


def _stored(field: str, folders: object, allowlist: Sequence[str]) -> tuple[tuple[str, str], ...]:
    shape = '{"/in/the/container": "file:///folder" or "s3://bucket/prefix"}'
    if folders is None:
        return ()
    if not isinstance(folders, Mapping):
        raise InvalidRequest(field, _shown(folders), shape)
    checked: list[tuple[str, str]] = []
    for given, url in folders.items():
        path = _absolute_path(field, given)
        if path == "/" or ".." in given.split("/"):
            raise InvalidRequest(field, _shown(given), "a folder below / in the container, without '..'")
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
        raise InvalidRequest(field, _shown(text), allowed)
    text = text.rstrip("/")
    if not url_allowed(text, allowlist):
        listed = f"URLs that match one of {', '.join(allowlist)} (stores_allowlist)"
        none = "no URL, because the operator's allowlist (stores_allowlist) is empty"
        raise InvalidRequest(field, text, listed if allowlist else none)
    return text


def _refuse_one_place_twice(spec: ContainerSpec) -> None:
    """No input or output lies in another, or in a volume; no output is kept within another."""
    ours = [(f"{field}[{path!r}]", path) for field in ("inputs", "outputs") for path, _ in getattr(spec, field)]
    binds = [(f"volumes[{volume.host!r}].bind", volume.bind) for volume in spec.volumes]
    _refuse_nested(ours, [*ours, *binds])
    kept = [(f"outputs[{path!r}]", url) for path, url in spec.outputs]
    _refuse_nested(kept, kept)


def _refuse_nested(places: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]]) -> None:
    for field, place in places:
        for other, theirs in others:
            if other != field and f"{place}/".startswith(f"{theirs}/"):
                raise InvalidRequest(field, place, f"a place of its own, not that of {other} or below it")
            if other != field and f"{theirs}/".startswith(f"{place}/"):
                raise InvalidRequest(other, theirs, f"a place of its own, not that of {field} or below it")


def _allowlist_text(allowlist: Sequence[str]) -> str:
    if not allowlist:
        return "no volume, because the operator's allowlist (volumes_allowlist) is empty"
    return f"folders in the operator's allowlist: {', '.join(allowlist)}"


def _network(network: object, allowlist: Sequence[str]) -> str:
    choices = ("none", "bridge", *allowlist)
    if not isinstance(network, str) or network not in choices or not _NETWORK.fullmatch(network):
        raise InvalidRequest("network", _shown(network), f"one of {', '.join(choices)}")
    return network


def _timeout(timeout: object) -> float:
    allowed = f"a number of seconds above 0 and at most {MAX_TIMEOUT_S:.0f}"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InvalidRequest("timeout", _shown(timeout), allowed)
    if not 0 < timeout <= MAX_TIMEOUT_S:  # false for NaN too
        raise InvalidRequest("timeout", _shown(timeout), allowed)
    return float(timeout)
