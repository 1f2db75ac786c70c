"""The demo's container image, made from programs of this machine: nothing is fetched from anywhere.

A busybox that has all the tools is enough; else the tools themselves with the libraries that they load.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cloudai.scheduling.errors import CloudAIError

#: What the jobs call (demo/jobs.py), and so what the image must hold; every POSIX machine with gzip has them.
TOOLS = ("sh", "awk", "cat", "cmp", "grep", "gzip", "head", "sha256sum", "sleep", "sort", "tr", "uniq", "wc")

REPOSITORY = "cloudai/demo"

#: "	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)" or "	/lib64/ld-linux-x86-64.so.2 (0x...)".
_LIBRARY = re.compile(r"(?:=>\s+)?(/\S+) \(0x")


class ImageError(CloudAIError):
    """The demo's image cannot be made here; the message says what is missing."""


def ensure_image(docker_url: str) -> str:
    """The name of the demo's image, imported into the engine at `docker_url` unless it is there.

    `docker_url` "" is the usual place.

    Raises:
        ImageError: a tool is missing on this machine, or the engine refuses the image.
    """
    import docker
    from docker.errors import DockerException, ImageNotFound

    archive = root_archive()
    tag = hashlib.sha256(archive).hexdigest()[:12]
    client: Any = docker.DockerClient(base_url=docker_url) if docker_url else docker.from_env()
    name = f"{REPOSITORY}:{tag}"
    try:
        client.images.get(name)
    except ImageNotFound:
        try:
            client.api.import_image_from_data(
                archive, repository=REPOSITORY, tag=tag, changes=["ENV PATH=/bin", "ENV LANG=C"]
            )
        except DockerException as error:
            raise ImageError(f"{name}: the engine refused the image: {error}") from error
    except DockerException as error:
        raise ImageError(f"{name}: the engine cannot be asked: {error}") from error
    finally:
        client.close()
    return name


def root_archive() -> bytes:
    """The image's files as a tar archive, the same bytes for the same programs.

    Raises:
        ImageError: a tool is missing on this machine.
    """
    busybox = shutil.which("busybox")
    if busybox is not None and set(TOOLS) <= _applets(busybox):
        programs = {"busybox": Path(busybox)}
        links = dict.fromkeys(TOOLS, "busybox")
    else:
        programs, links = _tools(), {}
    libraries = sorted({library for program in programs.values() for library in _libraries(program)})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in _folders(["/bin", "/tmp", *(str(Path(library).parent) for library in libraries)]):
            _add(archive, folder, tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755)
        for name, path in sorted(programs.items()):
            _add(archive, f"bin/{name}", tarfile.REGTYPE, content=path.read_bytes())
        for name, target in sorted(links.items()):
            _add(archive, f"bin/{name}", tarfile.SYMTYPE, target=target)
        for library in libraries:
            _add(archive, library.lstrip("/"), tarfile.REGTYPE, content=Path(library).read_bytes())
    return buffer.getvalue()


def _applets(busybox: str) -> set[str]:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=False)
    return set(listed.stdout.split())


def _tools() -> dict[str, Path]:
    found = {tool: shutil.which(tool) for tool in TOOLS}
    missing = sorted(tool for tool, path in found.items() if path is None)
    if missing:
        raise ImageError(f"the demo's image needs {', '.join(missing)}; install busybox on this machine")
    return {tool: Path(path).resolve() for tool, path in found.items() if path is not None}


def _libraries(program: Path) -> list[str]:
    """Paths of the shared libraries that a program loads, as the loader looks for them."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    return _LIBRARY.findall(listed.stdout) if listed.returncode == 0 else []


def _folders(paths: Iterable[str]) -> list[str]:
    """The folders and those above them, outermost first."""
    folders: set[str] = set()
    for path in paths:
        parts = path.strip("/").split("/")
        folders.update("/".join(parts[: i + 1]) for i in range(len(parts)))
    return sorted(folders)


def _add(
    archive: tarfile.TarFile,
    name: str,
    kind: bytes,
    *,
    mode: int = 0o755,
    content: bytes = b"",
    target: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), target
    archive.addfile(entry, io.BytesIO(content))
