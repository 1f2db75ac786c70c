"""What a submitter may ask of a container, checked before anything is written anywhere.

The same checks run twice: at submission, with what the producer's configuration allows, and on the node,
with what the node's operator allows, because the submitter's word is not enough.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudai.containers.arguments import (
    PULL_POLICIES,
    Volume,
    checked_command,
    checked_environment,
    checked_folders,
    checked_image,
    checked_network,
    checked_path,
    checked_secrets,
    checked_timeout,
    checked_user,
    checked_volumes,
    one_of,
    shown,
)
from cloudai.scheduling.errors import InvalidRequest

#: Most bytes that the arguments of a job may take as JSON, unless configured otherwise.
DEFAULT_MAX_ARGUMENT_BYTES = 64 * 1024


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
            raise InvalidRequest(unknown[0], shown(kwargs[unknown[0]]), f"one of {', '.join(_ARGUMENTS)}")
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
        image=checked_image(image, images_allowlist, images_pinned),
        command=checked_command(command),
        env=checked_environment("env", env),
        secrets=checked_secrets(secrets),
        workdir=None if workdir is None else checked_path("workdir", workdir),
        user=None if user is None else checked_user(user),
        volumes=checked_volumes(volumes, volumes_allowlist),
        inputs=checked_folders("inputs", inputs, stores_allowlist),
        outputs=checked_folders("outputs", outputs, stores_allowlist),
        network=checked_network(network, networks_allowlist),
        timeout=None if timeout is None else checked_timeout(timeout),
        pull=one_of("pull", pull, PULL_POLICIES),
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


def _refuse_same_name_twice(spec: ContainerSpec) -> None:
    secret_names = {name for name, _ in spec.secrets}
    for name, _ in spec.env:
        if name in secret_names:
            raise InvalidRequest("env", name, "a name that is in env or in secrets, not in both")


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
