"""Parameters as files: taken whole or refused whole, written atomically."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from cloudai import parameters_file
from cloudai.errors import InvalidParameters
from cloudai.scheduling.parameters import GAParams


def test_the_shipped_file_holds_the_defaults() -> None:
    shipped = resources.files("cloudai") / "default_config" / "ga_output.json"
    assert shipped.read_text(encoding="utf-8") == GAParams().to_json()


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    parameters = GAParams(alpha=12.0, affinity={"mixed": {"a": 1.5}}, version=7)
    path = tmp_path / "ga_output.json"
    parameters_file.save(path, parameters)
    assert parameters_file.load(path) == parameters
    assert [file.name for file in tmp_path.iterdir()] == ["ga_output.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not readable as JSON"),
        (GAParams().to_json().encode()[:-40], "not readable as JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"[1, 2]", "one object is allowed"),
        (json.dumps({"schema": 99}).encode(), "schema"),
        (GAParams().to_json().replace('"alpha": 10.0', '"alpha": -1').encode(), "alpha"),
        (GAParams().to_json().replace('"alpha"', '"alfa"').encode(), "alfa"),
    ],
)
def test_a_bad_file_is_refused_as_a_whole_with_its_name_and_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "ga_output.json"
    path.write_bytes(content)
    with pytest.raises(InvalidParameters) as refusal:
        parameters_file.load(path)
    assert str(path) in str(refusal.value)
    assert reason in str(refusal.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameters, match=r"none\.json: cannot be read"):
        parameters_file.load(tmp_path / "none.json")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ga_output.json"
    parameters_file.save(path, GAParams(alpha=11.0))

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        parameters_file.save(path, GAParams(alpha=12.0))
    assert parameters_file.load(path).alpha == 11.0
    assert [file.name for file in tmp_path.iterdir()] == ["ga_output.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "real.json"
    parameters_file.save(target, GAParams())
    link = tmp_path / "ga_output.json"
    link.symlink_to(target)
    parameters_file.save(link, GAParams(alpha=12.0))
    assert link.is_symlink()
    assert parameters_file.load(target).alpha == 12.0
