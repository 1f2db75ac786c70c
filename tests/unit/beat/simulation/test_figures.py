"""The rows of `cloudai bench` that simulations promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudai.bench.catalogue import promises
from cloudai.bench.lab import Lab
from cloudai_beat.simulation import figures

HEADER = "arrival_s,runtime_s,cpu\n"


def test_the_bench_knows_the_rows() -> None:
    names = [promise.name for promise in promises()]
    assert [promise.name for promise in figures.PROMISES] == [name for name in names if name.startswith("simulate-")]


def test_the_rows_are_measured_on_the_given_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_QUICK_JOBS", 120)
    rows = "".join(f"{index},{1 + index % 7},1\n" for index in range(300))
    (tmp_path / "log.csv").write_text(HEADER + rows)
    (tmp_path / "notes.md").write_text("no trace")
    lab = Lab(tmp_path / "lab", quick=True, traces=tmp_path)
    for promise in figures.PROMISES:
        figure = promise.measure(lab)
        assert figure.value >= 0
        assert "mean over 1 traces, 120 jobs of each" in figure.reference


def test_a_folder_without_traces_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no trace"):
        figures.PROMISES[0].measure(Lab(tmp_path, quick=True, traces=tmp_path))
