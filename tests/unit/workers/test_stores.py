"""Folders go into a store and come out as they were, whole, and nothing from outside comes with them."""

import os
import sys
from types import SimpleNamespace

import pytest

from cloudai_workers.stores import PathStore, S3Store, StoreError, store_of

WRITER = "cloudai-a-task-1"


def go_on():
    """Nobody stops the transfer."""


def url(path):
    return f"file://{path}"


def tree(folder):
    """What is in a folder: relative path -> content, link or None for a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else None
    return found


@pytest.fixture
def left(tmp_path):
    """What a job has left."""
    folder = tmp_path / "left"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "a").write_text("first")
    (folder / "deep" / "tool").write_text("#!/bin/sh\n")
    (folder / "deep" / "tool").chmod(0o4700)
    (folder / "latest").symlink_to("deep/tool")
    (folder / "deep" / "up").symlink_to("../a")
    return folder


def test_a_folder_is_kept_and_fetched(tmp_path, left):
    target = tmp_path / "shared" / "team" / "run"
    PathStore().keep(left, url(target), WRITER, go_on)
    fetched = tmp_path / "in"
    fetched.mkdir()
    PathStore().fetch(url(target), fetched, go_on)
    assert tree(fetched) == tree(left)
    assert (fetched / "deep" / "tool").stat().st_mode & 0o7777 == 0o755
    assert (fetched / "a").stat().st_mode & 0o7777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_what_was_there_is_replaced_as_a_whole(tmp_path, left):
    target = tmp_path / "run"
    PathStore().keep(left, url(target), WRITER, go_on)
    (tmp_path / f".run.{WRITER}.part").mkdir()  # as a node that died in between has left it
    (tmp_path / f".run.{WRITER}.part" / "half").touch()
    (left / "a").unlink()
    (left / "b").write_text("second")
    PathStore().keep(left, url(target), WRITER, go_on)
    assert tree(target) == tree(left)
    assert {path.name for path in tmp_path.iterdir()} == {"left", "run"}


@pytest.mark.parametrize("leads", ["/etc/passwd", "..", "../left/a", "deep/../../x", "hole/../.."])
def test_a_link_that_leads_out_is_refused_and_nothing_is_kept(tmp_path, left, leads):
    (left / "hole").symlink_to("deep/empty")
    (left / "link").symlink_to(leads)
    if leads == "hole/../..":  # inside, but the same words lead elsewhere than they say
        (left / "link").unlink()
        (left / "deep" / "self").symlink_to("..")
        (left / "deep" / "link").symlink_to("self/..")
    with pytest.raises(StoreError, match="link"):
        PathStore().keep(left, url(tmp_path / "run"), WRITER, go_on)
    assert {path.name for path in tmp_path.iterdir()} == {"left"}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path, left):
    os.mkfifo(left / "pipe")
    with pytest.raises(StoreError, match="pipe is neither"):
        PathStore().keep(left, url(tmp_path / "run"), WRITER, go_on)


def test_what_fails_leaves_the_old_folder(tmp_path, left):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("old")

    class StoppedError(Exception):
        pass

    def stop():
        raise StoppedError

    with pytest.raises(StoppedError):
        PathStore().keep(left, url(target), WRITER, stop)
    assert tree(target) == {"old": "old"}
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StoreError, match="something else"):
        PathStore().keep(left, url(tmp_path / "file"), WRITER, go_on)
    assert (tmp_path / "file").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"left", "run", "file"}


def test_who_fetches_a_folder_above_sees_no_half(tmp_path, left):
    shared = tmp_path / "shared"
    PathStore().keep(left, url(shared / "one"), WRITER, go_on)
    (shared / ".two.cloudai-other-1.part").mkdir()
    fetched = tmp_path / "in"
    fetched.mkdir()
    PathStore().fetch(url(shared), fetched, go_on)
    assert [path.name for path in fetched.iterdir()] == ["one"]


def test_a_missing_folder_and_an_unknown_scheme(tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        PathStore().fetch(url(tmp_path / "absent"), tmp_path, go_on)
    with pytest.raises(StoreError, match="allowed are file"):
        store_of("ftp://host/x")


class Bucket:
    """As much of boto3's client as the store uses, in memory."""

    def __init__(self):
        self.objects = {}

    def get_paginator(self, operation):
        assert operation == "list_objects_v2"
        return self

    def paginate(self, Bucket, Prefix):
        keys = [key for bucket, key in self.objects if bucket == Bucket and key.startswith(Prefix)]
        yield {}
        for key in keys:
            yield {"Contents": [{"Key": key}]}

    def put_object(self, Bucket, Key, Body):
        self.objects[Bucket, Key] = Body

    def upload_file(self, path, bucket, key):
        with open(path, "rb") as file:
            self.objects[bucket, key] = file.read()

    def download_file(self, bucket, key, path):
        with open(path, "wb") as file:
            file.write(self.objects[bucket, key])

    def delete_object(self, Bucket, Key):
        del self.objects[Bucket, Key]


@pytest.fixture
def bucket(monkeypatch):
    made = Bucket()
    error = type("Error", (Exception,), {})
    errors = SimpleNamespace(BotoCoreError=error, ClientError=error, Boto3Error=error)
    monkeypatch.setitem(sys.modules, "boto3", SimpleNamespace(client=lambda kind: made))
    monkeypatch.setitem(sys.modules, "botocore.exceptions", errors)
    monkeypatch.setitem(sys.modules, "boto3.exceptions", errors)
    return made


def test_a_bucket_keeps_and_gives(bucket, tmp_path, left):
    bucket.objects = {("team", "run/of/before"): b"", ("team", "runner/other"): b"", ("other", "run/x"): b""}
    (left / "latest").unlink()
    (left / "deep" / "up").unlink()
    store = store_of("s3://team/run")
    store.keep(left, "s3://team/run", WRITER, go_on)
    assert set(bucket.objects) == {
        ("team", "run/"), ("team", "run/a"), ("team", "run/deep/tool"), ("team", "runner/other"), ("other", "run/x")
    }  # fmt: skip
    fetched = tmp_path / "in"
    fetched.mkdir()
    store.fetch("s3://team/run", fetched, go_on)
    assert tree(fetched) == {"a": "first", "deep": None, "deep/tool": "#!/bin/sh\n"}


def test_an_empty_folder_in_a_bucket_is_one_too(bucket, tmp_path):
    (tmp_path / "empty").mkdir()
    S3Store().keep(tmp_path / "empty", "s3://team/run", WRITER, go_on)
    S3Store().fetch("s3://team/run", tmp_path / "empty", go_on)
    with pytest.raises(StoreError, match="nothing below"):
        S3Store().fetch("s3://team/absent", tmp_path / "empty", go_on)


@pytest.mark.parametrize("key", ["run/../x", "run//etc/x", "run/a/./b", "run/a/../../x"])
def test_a_key_that_leads_out_is_refused(bucket, tmp_path, key):
    bucket.objects["team", key] = b"x"
    with pytest.raises(StoreError, match="no name that a file can have"):
        S3Store().fetch("s3://team/run", tmp_path, go_on)
    assert not list(tmp_path.iterdir())


def test_a_bucket_keeps_no_links(bucket, left):
    with pytest.raises(StoreError, match="S3 keeps nothing else"):
        S3Store().keep(left, "s3://team/run", WRITER, go_on)


def test_a_node_without_boto3_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(StoreError, match=r"cloudai\[s3\]"):
        store_of("s3://team/run")
