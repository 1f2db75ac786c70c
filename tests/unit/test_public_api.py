"""The names that users import are frozen: a change here is a change of the public API, for CHANGELOG.md."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import cloudai
import cloudai.embedded
import cloudai.errors
import cloudai.settings

PUBLIC = {
    "cloudai": ["CloudAI", "__version__", "errors", "run_container"],
    "cloudai.embedded": ["EmbeddedMongo", "EmbeddedServer", "EmbeddedServerError", "EmbeddedValkey"],
    "cloudai.errors": [
        "CannotDecide",
        "CloudAIError",
        "ClusterFull",
        "ConfigurationError",
        "ContainerError",
        "DuplicateTask",
        "InvalidParameters",
        "InvalidRequest",
        "NodeRefused",
        "StateUnavailable",
        "Unplaceable",
    ],
    "cloudai.settings": [
        "ConfigurationError",
        "LearningSettings",
        "LimitSettings",
        "NodeSettings",
        "OptimiserSettings",
        "RedisSettings",
        "SchedulingSettings",
        "Settings",
        "state_folder",
    ],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_exported_names(module):
    assert sorted(sys.modules[module].__all__) == PUBLIC[module]
    for name in PUBLIC[module]:
        assert getattr(sys.modules[module], name) is not None


def test_every_exported_name_is_listed_by_dir():
    assert set(cloudai.__all__) <= set(dir(cloudai))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'cloudai' has no attribute 'CloudAi'"):
        _ = cloudai.CloudAi


def test_every_error_of_the_tree_can_be_caught_by_its_root():
    for name in cloudai.errors.__all__:
        assert issubclass(getattr(cloudai.errors, name), cloudai.errors.CloudAIError), name


def test_the_version_is_the_distributions():
    assert importlib.metadata.version("cloudai") == cloudai.__version__


def test_importing_the_package_loads_nothing_heavy():
    loaded = subprocess.run(
        [sys.executable, "-c", "import cloudai, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert not {"celery", "kombu", "redis", "numpy", "pydantic", "docker", "click", "rich"} & set(loaded)
