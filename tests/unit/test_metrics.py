"""What the pages, the alert rules and the dashboard say of metrics is true: each is declared, and each is described."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudai.metrics import METRICS
from cloudai.state.decision_times import BUCKETS, DecisionTimes

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "config/prometheus/alerts.yml"
DASHBOARD = ROOT / "config/grafana/cloudai.json"
PAGE = ROOT / "docs/metrics.md"

_NAME = re.compile(r"\bcloudai_\w+")
_KNOWN = {name: metric for metric in METRICS for name in metric.samples}


def expressions() -> Iterator[str]:
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    yield from (target["expr"] for panel in panels for target in panel.get("targets", ()))


def test_names_are_unique_and_say_their_kind() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"cloudai(_[a-z]+)+", name) for name in names)
    assert not [name for name in names if name.endswith(("_total", "_count", "_sum", "_bucket"))]


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_rules_and_panels_ask_for_metrics_and_labels_that_exist(expression: str) -> None:
    asked = _NAME.findall(expression)
    assert asked
    assert set(asked) <= _KNOWN.keys()
    labels = {label for name in asked for label in (*_KNOWN[name].labels, "le")}
    for given in re.findall(r"(?:by|on|ignoring) \(([^)]*)\)|\{(\w+)=", expression):
        assert set(re.findall(r"\w+", " ".join(given))) <= labels


def test_the_dashboard_shows_every_metric() -> None:
    shown = {_KNOWN[name].name for expression in expressions() for name in _NAME.findall(expression)}
    # What tells how much is behind another panel's figure.
    assert {metric.name for metric in METRICS} - shown == {"cloudai_tau_sigma_seconds", "cloudai_tau_samples"}


def test_panels_do_not_lie_on_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_alerts_say_what_happened_and_what_it_means() -> None:
    rules: Any = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    for rule in rules:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_page_describes_every_metric() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `cloudai_")]
    described = {name.strip("`"): (kind, labels.replace("`", ""), meaning) for name, kind, labels, meaning in rows}
    declared = {
        metric.samples[0] if metric.kind in ("counter", "gauge") else metric.name: (
            metric.kind, ", ".join(metric.labels), metric.meaning,
        )
        for metric in METRICS
    }  # fmt: skip
    assert described == declared


def test_times_of_decisions_are_taken_once() -> None:
    times = DecisionTimes()
    assert times.take() == []
    for seconds in (24e-6, 25e-6, 26e-6, 0.5, 7.0):
        times.observe(seconds)
    total, *pairs = times.take()
    assert total == 24 + 25 + 26 + 500_000 + 7_000_000
    assert dict(zip(pairs[::2], pairs[1::2], strict=True)) == {"25": 2, "50": 1, "1000000": 1, "inf": 1}
    assert set(pairs[::2]) <= set(BUCKETS)
    assert times.take() == []


def test_times_that_nobody_takes_do_not_grow() -> None:
    times = DecisionTimes()
    for _ in range(5000):
        times.observe(1e-6)
    _, bucket, count = times.take()
    assert (bucket, count) == ("25", 1000)
