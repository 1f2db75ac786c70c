"""Where the folders that jobs are given and leave are kept: a folder that nodes share, or a bucket of S3's kind.

A store copies whole folders. Files come out readable by all (0644, or 0755 where they were executable).
"""

from __future__ import annotations

import importlib
import os
import posixpath
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

#: Bytes that are copied between two looks at whether to go on.
_CHUNK = 1 << 20
#: What a writer has not finished, or is removing, beside the folder itself.
_UNFINISHED = re.compile(r"\..+\.cloudai-.+\.(?:part|old)")
#: How often a folder is exchanged while others do so too.
_EXCHANGES = 10


class StoreError(Exception):
    """A folder could not be fetched or kept; the message names its URL and says why."""


class Store(Protocol):
    """One kind of store. `check` is called again and again while bytes move; what it raises ends the transfer."""

    def fetch(self, url: str, folder: Path, check: Callable[[], None]) -> None:
        """Copy what is at `url` into `folder`, which is there and empty. Raises StoreError."""

    def keep(self, folder: Path, url: str, writer: str, check: Callable[[], None]) -> None:
        """Make what is at `url` a copy of `folder`, whatever was there. Raises StoreError.

        `writer` is the name of the attempt's job, of letters, digits, '.', '_' and '-'.
        """


def store_of(url: str) -> Store:
    """The store for a URL that was checked. Raises StoreError for a scheme that no store has."""
    if url.startswith("file:///"):
        return PathStore()
    if url.startswith("s3://"):
        return S3Store()
    raise StoreError(f"{url}: allowed are file:///folder and s3://bucket/prefix")


class PathStore:
    """Folders that every node sees under the same path, such as a network file system."""

    def fetch(self, url: str, folder: Path, check: Callable[[], None]) -> None:
        """See `Store`."""
        source = Path(url.removeprefix("file://"))
        if not source.is_dir():
            raise StoreError(f"{url}: there is no such folder on this node")
        try:
            _copy_tree(source, folder, check)
        except OSError as error:
            raise StoreError(f"{url}: {error}") from error

    def keep(self, folder: Path, url: str, writer: str, check: Callable[[], None]) -> None:
        """See `Store`. Written beside and renamed: who reads sees the old folder, none or the new one, never a half."""
        target = Path(url.removeprefix("file://"))
        part, old = (target.parent / f".{target.name}.{writer}.{kind}" for kind in ("part", "old"))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for left in (part, old):  # by this attempt, when its node died
                _remove(left)
            part.mkdir()
            _copy_tree(folder, part, check)
            check()
            _exchange(part, target, old)
        except OSError as error:
            raise StoreError(f"{url}: {error}") from error
        finally:
            for left in (part, old):
                shutil.rmtree(left, ignore_errors=True)


class S3Store:
    """Objects below a prefix, by boto3 and what it finds of credentials and endpoint on the node."""

    def __init__(self) -> None:
        try:
            self._boto3: Any = importlib.import_module("boto3")
            errors: Any = importlib.import_module("botocore.exceptions")
            transfer_errors: Any = importlib.import_module("boto3.exceptions")
        except ImportError as error:
            raise StoreError(f"s3:// needs boto3 on the node: pip install 'cloudai[s3]' there ({error})") from error
        self._trouble = (errors.BotoCoreError, errors.ClientError, transfer_errors.Boto3Error, OSError)

    def fetch(self, url: str, folder: Path, check: Callable[[], None]) -> None:
        """See `Store`."""
        bucket, prefix = _bucket_and_prefix(url)
        found = False
        try:
            client = self._boto3.client("s3")
            for key in self._keys(client, bucket, prefix):
                check()
                found = True
                name = key.removeprefix(prefix)
                if not name:
                    continue  # the folder itself
                place = folder / name
                if "\0" in name or any(part in ("", ".", "..") for part in name.rstrip("/").split("/")):
                    raise StoreError(f"{url}: the object {key!r} has no name that a file can have")
                if name.endswith("/"):
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, key, str(place))
                place.chmod(0o644)
            for base, _, _ in os.walk(folder):
                os.chmod(base, 0o755)
        except self._trouble as error:
            raise StoreError(f"{url}: {error}") from error
        if not found:
            raise StoreError(f"{url}: there is nothing below this prefix")

    def keep(self, folder: Path, url: str, writer: str, check: Callable[[], None]) -> None:
        """See `Store`. Object by object, then what was there before and is no more goes."""
        bucket, prefix = _bucket_and_prefix(url)
        try:
            client = self._boto3.client("s3")
            client.put_object(Bucket=bucket, Key=prefix, Body=b"")  # an empty folder is one too
            written = {prefix}
            for path in _plain_files(folder):
                check()
                key = prefix + path.relative_to(folder).as_posix()
                client.upload_file(str(path), bucket, key)
                written.add(key)
            for key in list(self._keys(client, bucket, prefix)):
                if key not in written:
                    check()
                    client.delete_object(Bucket=bucket, Key=key)
        except self._trouble as error:
            raise StoreError(f"{url}: {error}") from error

    def _keys(self, client: Any, bucket: str, prefix: str) -> Any:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for row in page.get("Contents", ()):
                yield row["Key"]


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    """("bucket", "prefix/")."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, f"{prefix}/"


def _copy_tree(source: Path, target: Path, check: Callable[[], None]) -> None:
    """Copy a folder's files, folders and links that stay inside; StoreError for anything else, OSError."""
    root = os.path.realpath(source)
    os.chmod(target, 0o755)
    left = [""]
    while left:
        below = left.pop()
        with os.scandir(os.path.join(source, below)) as entries:
            for entry in entries:
                check()
                if _UNFINISHED.fullmatch(entry.name):
                    continue
                name = os.path.join(below, entry.name)
                place = os.path.join(target, name)
                if entry.is_symlink():
                    os.symlink(_inner_link(root, source, name), place)
                elif entry.is_dir(follow_symlinks=False):
                    os.mkdir(place)
                    os.chmod(place, 0o755)
                    left.append(name)
                else:
                    _copy_file(entry.path, name, place, check)


def _inner_link(root: str, source: Path, name: str) -> str:
    """Where a link leads, if that is inside the folder, whichever place the folder is copied to."""
    path = os.path.join(source, name)
    leads = os.readlink(path)
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(name), leads))
    truly = os.path.realpath(path)
    inside = truly == root or truly.startswith(f"{root}/")
    if leads.startswith("/") or meant == ".." or meant.startswith("../") or not inside:
        raise StoreError(f"{name} is a link to {leads}: only relative links that stay inside the folder are copied")
    return leads


def _copy_file(path: str, name: str, place: str, check: Callable[[], None]) -> None:
    # Not blocking: a pipe that somebody put there would wait for its writer for ever.
    with open(path, "rb", opener=lambda p, _: os.open(p, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise StoreError(f"{name} is neither a file, a folder nor a link")
        with open(place, "xb") as copy:
            while chunk := file.read(_CHUNK):
                copy.write(chunk)
                check()
            os.fchmod(copy.fileno(), 0o755 if mode & 0o111 else 0o644)


def _plain_files(folder: Path) -> list[Path]:
    found = []
    for base, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(base, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise StoreError(f"{path.relative_to(folder)} is neither a file nor a folder: S3 keeps nothing else")
            if stat.S_ISREG(mode):
                found.append(path)
    return found


def _raise(error: OSError) -> None:
    raise error


def _exchange(part: Path, target: Path, old: Path) -> None:
    """Put `part` in the place of `target`, what was there in the place of `old`; others may do the same meanwhile."""
    for _ in range(_EXCHANGES):
        if os.path.lexists(target):
            if target.is_symlink() or not target.is_dir():
                raise StoreError(f"file://{target}: there is something else than a folder")
            try:
                os.rename(target, old)
            except FileNotFoundError:
                continue
        try:
            os.rename(part, target)
            return
        except OSError:
            if not os.path.lexists(target):
                if old.is_dir():
                    os.rename(old, target)
                raise
            _remove(old)
    raise StoreError(f"file://{target}: others write it all the time")


def _remove(folder: Path) -> None:
    if os.path.lexists(folder):
        shutil.rmtree(folder)
