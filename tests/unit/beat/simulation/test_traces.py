"""What a trace may look like, and how a broken one is refused: with the line, what stands there and what is allowed."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.scheduling.task_types import TASK_TYPES, TaskType
from cloudai.scheduling.units import KIB_PER_GIB
from cloudai_beat.simulation.errors import TraceRefused
from cloudai_beat.simulation.trace_files import read_trace
from cloudai_beat.simulation.workload import Trace

HEADER = "arrival_s,runtime_s,cpu,memory_gib,gpu,user,family,limit_s\n"
#: A line of an SWF log: submitted at 10, ran 60 s on 4 processors, wanted 8, with a limit of 100 s.
SWF_LINE = "1 10 5 60 4 -1 -1 8 100 1048576 1 7 2 3 1 -1 -1 -1"


def written(folder: Path, name: str, text: str | bytes) -> str:
    content = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(folder / name)


def types_of(trace: Trace) -> list[TaskType]:
    return [TASK_TYPES[kind] for kind in trace.kind]


def test_a_csv_is_read_by_its_header(tmp_path: Path) -> None:
    text = "cpu,note,runtime_s,arrival_s,gpu,memory_gib,family,limit_s\n2,x,7.5,100,0.5,3,etl,60\n1,y,3,40,,,,\n"
    trace = read_trace(written(tmp_path, "log.csv.gz", text))
    # Sorted by arrival, and the first arrives at 0.
    assert trace.arrival_s.tolist() == [0, 60]
    assert trace.runtime_s.tolist() == [3, 7.5]
    assert trace.demand.tolist() == [[1000, KIB_PER_GIB // 2, 0, 0], [2000, 3 * KIB_PER_GIB, 500, 0]]
    assert types_of(trace) == [TaskType.CPU_LIGHT, TaskType.GPU_INFERENCE]
    assert trace.family.tolist() == [-1, 0]
    assert np.isnan(trace.limit_s[0])
    assert trace.limit_s[1] == 60
    assert trace.line.tolist() == [3, 2]


def test_a_type_and_a_deadline_of_its_own_are_kept(tmp_path: Path) -> None:
    text = "arrival_s,runtime_s,cpu,task_type,deadline_s\n0,5,1,gpu-training,11\n1,5,1,,\n"
    trace = read_trace(written(tmp_path, "log.csv", text))
    assert types_of(trace) == [TaskType.GPU_TRAINING, TaskType.CPU_LIGHT]
    assert trace.deadline_s[0] == 11
    assert np.isnan(trace.deadline_s[1])


def test_rows_that_never_ran_are_left_out_and_counted(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "log.csv", HEADER + "0,0,1,,,,,\n1,,1,,,,,\n\n2,4,1,,,,,\n"))
    assert (len(trace), trace.left_out) == (1, 2)


def test_memory_that_nobody_recorded_is_not_reserved(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "log.csv", "arrival_s,runtime_s,cpu\n0,1,1\n"))
    assert trace.demand.tolist() == [[1000, 0, 0, 0]]


def test_gpus_above_one_are_whole_devices(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "log.csv", HEADER + "0,1,1,,2.5,,,\n"))
    assert trace.demand[0, 2] == 3000


def test_a_standard_workload_log_is_read(tmp_path: Path) -> None:
    cancelled = "2 20 -1 -1 4 -1 -1 4 100 -1 5 7 2 -1 1 -1 -1 -1"
    trace = read_trace(written(tmp_path, "kth.swf.gz", f"; Computer: SP2\n\n{SWF_LINE}\n{cancelled}\n"))
    assert (len(trace), trace.left_out) == (1, 1)
    assert trace.demand[0].tolist() == [8000, 8 * KIB_PER_GIB, 0, 0]
    assert trace.limit_s[0] == 100
    assert trace.line[0] == 3


@pytest.mark.parametrize("kind", ["burst", "steady", "mixed"])
def test_synthetic_traces_are_the_same_in_every_run(kind: str) -> None:
    first, second = read_trace(f"synthetic:{kind}"), read_trace(f"synthetic:{kind}")
    assert np.array_equal(first.runtime_s, second.runtime_s)
    assert np.array_equal(first.demand, second.demand)


def test_the_mixed_synthetic_trace_has_all_six_types() -> None:
    assert set(types_of(read_trace("synthetic:mixed"))) == set(TASK_TYPES)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "lacks arrival_s, runtime_s, cpu"),
        ("arrival_s,cpu\n0,1\n", 1, "lacks runtime_s"),
        ("arrival_s;runtime_s;cpu\n0;5;1\n", 1, "the line has: arrival_s;runtime_s;cpu"),
        ("arrival_s,cpu,runtime_s,cpu\n", 1, "cpu twice"),
        (HEADER, None, "no jobs"),
        (HEADER + "0,0,1,,,,,\n", None, "no jobs that ran (1 did not)"),
        (HEADER + "0,1,1,,,,,\n-3,1,1,,,,,\n", 3, "arrival_s: '-3' was given; allowed: a number from 0"),
        (HEADER + "0,-1,1,,,,,\n", 2, "runtime_s: '-1' was given"),
        (HEADER + "0,nan,1,,,,,\n", 2, "runtime_s: 'nan' was given"),
        (HEADER + "inf,1,1,,,,,\n", 2, "arrival_s: 'inf' was given"),
        (HEADER + ",1,1,,,,,\n", 2, "arrival_s: '' was given"),
        (HEADER + "0,1,much,,,,,\n", 2, "cpu: 'much' was given"),
        (HEADER + "0,1,1,-2,,,,\n", 2, "memory_gib: '-2' was given"),
        (HEADER + "0,1,1,,,,,-5\n", 2, "limit_s: '-5' was given"),
        (HEADER + "0,1,1\n", 2, "3 cells; the header line has 8 columns"),
        (HEADER + '0,1,1,,,,"a,\n', 2, "not readable as CSV"),
        ("arrival_s,runtime_s,cpu,task_type\n0,1,1,dl\n", 2, "task_type: 'dl' was given; allowed: cpu-light"),
    ],
)
def test_a_broken_csv_is_refused_with_its_line(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    with pytest.raises(TraceRefused) as refused:
        read_trace(written(tmp_path, "log.csv", text))
    assert refused.value.line == line
    assert said in str(refused.value)
    assert "log.csv" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("; nothing\n", None, "no jobs"),
        ("1 2 3\n", 1, "3 fields; a job has 18"),
        (f"{SWF_LINE}\n{SWF_LINE.replace(' 60 ', ' x ')}\n", 2, "run time: 'x' was given"),
        (SWF_LINE.replace(" 60 ", " -60 "), 1, "run time: -60 was given"),
        (SWF_LINE.replace(" 10 ", " -10 "), 1, "submit time: -10 was given"),
        (SWF_LINE.replace(" 60 ", " nan "), 1, "run time: 'nan' was given"),
    ],
)
def test_a_broken_swf_is_refused_with_its_line(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    with pytest.raises(TraceRefused) as refused:
        read_trace(written(tmp_path, "log.swf", text))
    assert refused.value.line == line
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.csv", "there is no such file"),
        ("log.json", "the form follows from the name"),
        ("synthetic:nothing", "allowed: burst, steady, mixed"),
    ],
)
def test_a_trace_that_is_not_there_is_said_so(name: str, said: str) -> None:
    with pytest.raises(TraceRefused, match=said):
        read_trace(name)


def test_a_file_that_is_no_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv.gz").write_bytes(b"arrival_s")
    with pytest.raises(TraceRefused, match="cannot be read"):
        read_trace(str(tmp_path / "log.csv.gz"))
    (tmp_path / "half.csv.gz").write_bytes(gzip.compress(HEADER.encode() * 100)[:40])
    with pytest.raises(TraceRefused, match="cannot be read"):
        read_trace(str(tmp_path / "half.csv.gz"))


_cells = st.one_of(
    st.sampled_from(["0", "1", "2.5", "-1", "", "nan", "inf", "1e300", "cpu-light", '"', "a,b", "٣"]),
    st.text(max_size=6),
)
_csv_texts = st.one_of(
    st.lists(st.lists(_cells, min_size=3, max_size=9).map(",".join), max_size=5).map(
        lambda rows: (HEADER + "\n".join(rows)).encode("utf-8", "surrogatepass")
    ),
    st.binary(max_size=200),
)
_swf_texts = st.one_of(
    st.lists(
        st.lists(
            st.one_of(st.sampled_from(["1", "0", "-1", "-2", "1e40", "x", ";"]), st.integers().map(str)),
            min_size=17,
            max_size=19,
        ).map(" ".join),
        max_size=4,
    ).map(lambda rows: "\n".join(rows).encode()),
    st.binary(max_size=200),
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(name=st.sampled_from(["log.csv", "log.csv.gz", "log.swf", "log.swf.gz"]), csv=_csv_texts, swf=_swf_texts)
def test_whatever_a_file_holds_it_is_a_trace_or_it_is_refused(name: str, csv: bytes, swf: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), name, csv if ".csv" in name else swf)
        try:
            trace = read_trace(path)
        except TraceRefused:
            return
    assert len(trace) > 0
    assert np.isfinite(trace.arrival_s).all()
    assert (trace.runtime_s > 0).all()
    assert (trace.demand >= 0).all()
    assert (trace.demand[:, 0] > 0).all()
    assert (np.diff(trace.arrival_s) >= 0).all()
