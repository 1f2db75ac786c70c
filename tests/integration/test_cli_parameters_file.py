"""A watched parameters file against the store in Redis."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudai import parameters_file
from cloudai.deployment import Deployment
from cloudai.parameters_file import WatchState, publish_if_changed
from cloudai.scheduling.parameters import GAParams
from cloudai.settings import Settings
from cloudai.state.parameters import ParameterStore


@pytest.fixture
def store(redis_url: str) -> Iterator[ParameterStore]:
    deployment = Deployment(Settings.load(redis={"url": redis_url}))
    yield deployment.parameters
    deployment.client.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ga_output.json"


def in_force(store: ParameterStore) -> GAParams:
    published = store.read()
    assert published is not None
    return published.parameters


def edit(path: Path, **changes: float) -> None:
    """Change numbers of the file as a person does, without any of our functions."""
    text = path.read_text()
    for name, value in changes.items():
        line = next(line for line in text.splitlines() if f'"{name}"' in line)
        text = text.replace(line, f'  "{name}": {value},')
    path.write_text(text)


def test_a_change_by_hand_is_published_once(store: ParameterStore, path: Path) -> None:
    parameters_file.save(path, GAParams())
    state = WatchState()
    assert publish_if_changed(path, store, state) is None
    edit(path, alpha=12.0)
    assert publish_if_changed(path, store, state) == 1
    assert publish_if_changed(path, store, state) is None
    # Another watcher of the same file finds it in force.
    assert publish_if_changed(path, store, WatchState()) is None
    edit(path, alpha=13.0)
    assert publish_if_changed(path, store, state) == 2
    assert in_force(store).alpha == 13.0


def test_an_export_is_no_change_even_when_it_is_old(store: ParameterStore, path: Path) -> None:
    store.publish(GAParams(alpha=11.0), "epoch")
    parameters_file.export(path, in_force(store))
    store.publish(GAParams(alpha=12.0), "epoch")
    # A control process that starts now finds the export of the version before.
    assert publish_if_changed(path, store, WatchState()) is None
    assert in_force(store).alpha == 12.0
    edit(path, beta=2.0)
    assert publish_if_changed(path, store, WatchState()) == 3
    assert in_force(store).beta == 2.0


def test_the_shipped_defaults_do_not_undo_what_was_learned(store: ParameterStore, path: Path) -> None:
    store.publish(GAParams(alpha=12.0), "epoch")
    parameters_file.save(path, GAParams())
    assert publish_if_changed(path, store, WatchState()) is None
    assert in_force(store).alpha == 12.0


def test_a_refused_file_changes_nothing_and_is_logged_once_per_content(
    store: ParameterStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.publish(GAParams(alpha=12.0), "epoch")
    state = WatchState()
    with caplog.at_level(logging.ERROR):
        for content in ("{", "{", '{"schema": 99}'):
            path.write_text(content)
            assert publish_if_changed(path, store, state) is None
    assert [record.message.partition(" ")[0] for record in caplog.records] == ["parameters-file-refused"] * 2
    assert in_force(store).version == 1


def test_a_file_that_is_not_there_is_no_change(
    store: ParameterStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = WatchState()
    assert publish_if_changed(path, store, state) is None
    assert not caplog.records
    path.write_text(GAParams(alpha=12.0).to_json())
    assert publish_if_changed(path, store, state) == 1
