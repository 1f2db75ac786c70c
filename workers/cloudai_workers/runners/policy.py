"""What a node's operator allows, checked on the node itself, and secrets read there."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass

from cloudai.containers.allowlists import image_allowed, is_pinned, url_allowed, volume_allowed
from cloudai.containers.arguments import Volume
from cloudai.containers.errors import Refused
from cloudai.containers.spec import ContainerSpec

#: Largest secret that is read from a file, in bytes.
MAX_SECRET_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """The operator's allowlists. An empty list allows nothing, but for images, where it allows all."""

    #: Folders that may be mounted; "/folder:ro" for reading only.
    volumes: tuple[str, ...] = ()
    #: Patterns of the URLs of inputs and outputs, such as "file:///srv/cloudai/*" or "s3://team-*".
    stores: tuple[str, ...] = ()
    #: Names of networks beside "none" and "bridge".
    networks: tuple[str, ...] = ()
    #: Image patterns.
    images: tuple[str, ...] = ()
    #: Only images named by their digest.
    images_pinned: bool = False
    #: Patterns of secret references, such as "env:JOB_*" or "file:/etc/cloudai/secrets/*".
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the node made of a specification: true paths and secret values."""

    #: Volumes with the true host path, links and ".." resolved.
    volumes: tuple[Volume, ...]
    #: Environment including secrets.
    env: tuple[tuple[str, str], ...]
    #: Inputs as (path in the container, URL), links in the paths of file:// resolved.
    inputs: tuple[tuple[str, str], ...] = ()
    #: Outputs, likewise.
    outputs: tuple[tuple[str, str], ...] = ()


def admit(spec: ContainerSpec, policy: NodePolicy) -> Admitted:
    """Check a specification against the node's policy and resolve what only the node can resolve.

    Raises:
        Refused: naming what is not allowed here.

    """
    if not image_allowed(spec.image, policy.images):
        raise Refused(f"image {spec.image}: allowed are {', '.join(policy.images)}")
    if policy.images_pinned and not is_pinned(spec.image):
        raise Refused(f"image {spec.image}: allowed are images named by their digest, name@sha256:...")
    networks = ("none", "bridge", *policy.networks)
    if spec.network not in networks:
        raise Refused(f"network {spec.network}: allowed are {', '.join(networks)}")
    volumes = tuple(_resolve_volume(volume, policy) for volume in spec.volumes)
    secrets = tuple((name, _read_secret(name, reference, policy)) for name, reference in spec.secrets)
    inputs, outputs = (
        tuple((path, _resolve_url(f"{field}[{path!r}]", url, policy)) for path, url in folders)
        for field, folders in (("inputs", spec.inputs), ("outputs", spec.outputs))
    )
    return Admitted(volumes, spec.env + secrets, inputs, outputs)


def _resolve_url(field: str, url: str, policy: NodePolicy) -> str:
    # As with volumes: a link in a shared folder leads nowhere that the operator has not allowed.
    true_url = url
    if url.startswith("file://"):
        true_url = f"file://{os.path.realpath(url.removeprefix('file://'))}"
    if not url_allowed(true_url, [_true_pattern(pattern) for pattern in policy.stores]):
        led = f", which is {true_url}" if true_url != url else ""
        raise Refused(f"{field} {url}{led}: allowed are {_listed(policy.stores)} (node.stores_allowlist)")
    return true_url


def _true_pattern(pattern: str) -> str:
    """The pattern with the links in its folders before the first wildcard resolved."""
    if not pattern.startswith("file:///"):
        return pattern
    path = pattern.removeprefix("file://")
    plain = re.split(r"[*?[]", path, maxsplit=1)[0]
    if plain == path:
        return f"file://{os.path.realpath(path)}"
    folder = plain.rpartition("/")[0]
    return f"file://{os.path.realpath(folder).rstrip('/') if folder else ''}{path[len(folder):]}"


def _resolve_volume(volume: Volume, policy: NodePolicy) -> Volume:
    # The engine gets the true path, so that a link exchanged later leads nowhere new from the path's own
    # parts.
    true_path = os.path.realpath(volume.host)
    allowlist = [_true_entry(entry) for entry in policy.volumes]
    if not volume_allowed(true_path, volume.mode, allowlist):
        led = f", which is {true_path}" if true_path != volume.host else ""
        raise Refused(f"volume {volume.host} ({volume.mode}){led}: allowed are {_listed(policy.volumes)}")
    if not os.path.exists(true_path):
        raise Refused(f"volume {volume.host}: there is no such path on this node")
    return Volume(true_path, volume.bind, volume.mode)


def _true_entry(entry: str) -> str:
    folder, suffix = (entry[:-3], ":ro") if entry.endswith(":ro") else (entry, "")
    return os.path.realpath(folder) + suffix


def _read_secret(name: str, reference: str, policy: NodePolicy) -> str:
    kind, _, where = reference.partition(":")
    if kind == "file":
        where = os.path.realpath(where)
    if not any(fnmatch.fnmatchcase(f"{kind}:{where}", pattern) for pattern in policy.secrets):
        raise Refused(f"secret {name} ({reference}): allowed are {_listed(policy.secrets)}")
    if kind == "env":
        value = os.environ.get(where)
        if value is None:
            raise Refused(f"secret {name} ({reference}): this node has no such environment variable")
        return value
    try:
        with open(where, encoding="utf-8") as file:
            value = file.read(MAX_SECRET_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"secret {name} ({reference}): cannot be read: {error}") from error
    if len(value) > MAX_SECRET_BYTES:
        raise Refused(f"secret {name} ({reference}): longer than {MAX_SECRET_BYTES} bytes")
    return value.removesuffix("\n")


def _listed(entries: tuple[str, ...]) -> str:
    return ", ".join(entries) if entries else "none"
