"""What placing makes of settings and requests, before any fleet is asked."""

from __future__ import annotations

import pytest

from cloudai.deployment import Deployment
from cloudai.scheduling.requests import RequestDefaults, parse_request
from cloudai.settings import Settings


@pytest.mark.parametrize(
    ("asked", "k"),
    [
        ({"task_type": "mixed"}, 1.8),
        ({"task_type": "gpu-training"}, 2.4),
        ({"task_type": "gpu-training", "sla_multiplier": 1.5}, 1.5),
    ],
)
def test_k_is_the_request_s_then_the_type_s_then_the_general_one(asked: dict[str, object], k: float) -> None:
    scheduling = {"sla_multiplier": 1.8, "sla_multiplier_by_type": {"gpu-training": 2.4}}
    placing = Deployment(Settings.load(scheduling=scheduling)).placing
    request = parse_request({"cpu": 1}, now=0.0, defaults=RequestDefaults(), **asked)
    assert placing.sla_s(request, tau=10.0) == pytest.approx(10 * k)
