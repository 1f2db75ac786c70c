"""Settings: where they come from, what they refuse and how they say it."""

from __future__ import annotations

import os
import pickle
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.errors import CloudAIError
from cloudai.scheduling.parameters import GAParams
from cloudai.settings import ConfigurationError, Settings, state_folder
from cloudai.settings.reference import as_markdown, as_toml, setting_docs, toml_value
from cloudai.settings.sources import PLAIN_NAMES

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """No setting in the environment, no file in the working directory."""
    for name in list(os.environ):
        if name.startswith("CLOUDAI_") or name in PLAIN_NAMES:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(**overrides) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**overrides)
    return list(caught.value.problems)


def test_without_any_source_the_defaults_hold():
    settings = Settings.load()
    assert settings == Settings()
    assert settings.redis.url == "redis://localhost:6379/0"
    assert settings.scheduling.sla_multiplier == 2.0
    assert settings.limits.default_memory == 0.5
    assert settings.node.cpu is None
    assert settings.optimiser.epoch_interval_s == 60


def test_arguments_win_over_the_environment_over_the_file_over_defaults(empty_folder, monkeypatch):
    Path("cloudai.toml").write_text(
        '[redis]\nnamespace = "file"\nurl = "redis://file"\ndurability = "strict"\n'
    )
    monkeypatch.setenv("CLOUDAI_REDIS__NAMESPACE", "environment")
    monkeypatch.setenv("CLOUDAI_REDIS__URL", "redis://environment")
    redis = Settings.load(redis={"namespace": "argument"}).redis
    assert redis.namespace == "argument"
    assert redis.url == "redis://environment"
    assert redis.durability == "strict"
    assert redis.result_url == ""


def test_the_named_file_wins_over_the_working_directory(tmp_path, monkeypatch):
    Path("config").mkdir()
    Path("config/cloudai.toml").write_text('[redis]\nnamespace = "config"\n')
    assert Settings.load().redis.namespace == "config"
    Path("cloudai.toml").write_text('[redis]\nnamespace = "here"\n')
    assert Settings.load().redis.namespace == "here"
    named = tmp_path / "named.toml"
    named.write_text('[redis]\nnamespace = "named"\n')
    monkeypatch.setenv("CLOUDAI_CONFIG", str(named))
    assert Settings.load().redis.namespace == "named"


def test_a_named_file_must_exist(monkeypatch):
    monkeypatch.setenv("CLOUDAI_CONFIG", "/nowhere/cloudai.toml")
    assert refusal() == [
        "CLOUDAI_CONFIG: given '/nowhere/cloudai.toml', allowed: the path of a TOML file that exists"
    ]


def test_a_file_that_is_not_toml_is_refused_with_its_line():
    Path("cloudai.toml").write_text("[redis]\nurl = redis://x\n")
    (problem,) = refusal()
    assert problem.startswith("cloudai.toml: not a TOML file: ")
    assert "line 2" in problem


def test_a_file_that_is_not_text_is_refused():
    Path("cloudai.toml").write_bytes(b"\xff\xfe\x00")
    (problem,) = refusal()
    assert problem.startswith("cloudai.toml: not a TOML file: ")


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_plain_names_set_their_setting_and_give_way_to_the_prefixed_name(name, monkeypatch):
    section, key = PLAIN_NAMES[name]
    default = getattr(getattr(Settings(), section), key)
    plain, prefixed = ("1.7", "1.9") if key == "sla_multiplier" else ("0.25", "0.5")
    if isinstance(default, int) or key == "epoch_interval_s":
        plain, prefixed = "17", "19"
    monkeypatch.setenv(name, plain)
    assert getattr(getattr(Settings.load(), section), key) == float(plain)
    monkeypatch.setenv(f"CLOUDAI_{section}__{key}".upper(), prefixed)
    assert getattr(getattr(Settings.load(), section), key) == float(prefixed)


def test_lists_and_tables_from_the_environment(monkeypatch):
    monkeypatch.setenv("CLOUDAI_NODE__LABELS", "zone=eu-1, gpu = a100")
    monkeypatch.setenv("CLOUDAI_NODE__VOLUMES_ALLOWLIST", "/data, /scratch")
    monkeypatch.setenv("CLOUDAI_NODE__IMAGES_ALLOWLIST", '["registry/a,b"]')
    monkeypatch.setenv("CLOUDAI_NODE__MEMORY", "16GiB")
    monkeypatch.setenv("CLOUDAI_SCHEDULING__SLA_MULTIPLIER_BY_TYPE", '{"gpu-training": 2.5}')
    settings = Settings.load()
    assert settings.node.labels == {"zone": "eu-1", "gpu": "a100"}
    assert settings.node.volumes_allowlist == ("/data", "/scratch")
    assert settings.node.images_allowlist == ("registry/a,b",)
    assert settings.node.memory == 16.0
    assert settings.scheduling.sla_multiplier_by_type == {"gpu-training": 2.5}


def test_a_table_is_taken_whole_from_the_first_source_that_has_it(monkeypatch):
    Path("cloudai.toml").write_text('[node]\nlabels = {zone = "eu-1", rack = "7"}\n')
    monkeypatch.setenv("CLOUDAI_NODE__LABELS", "zone=us-1")
    assert Settings.load().node.labels == {"zone": "us-1"}


def test_every_problem_is_named_with_its_source(monkeypatch):
    Path("cloudai.toml").write_text('[redis]\nurl = "http://x"\nurll = "y"\n[node]\nslots = "many"\n')
    monkeypatch.setenv("SCHED_SLA_MULTIPLIER", "3")
    monkeypatch.setenv("CLOUDAI_LIMITS__TAIL_KIB", "-1")
    redis_url = "a URL that starts with redis://, rediss:// or sentinel://"
    assert sorted(refusal(optimiser={"mutation_rate": float("nan")})) == sorted(
        [
            f"cloudai.toml: redis.url: given 'http://x', allowed: {redis_url}",
            "cloudai.toml: redis.urll: unknown setting (did you mean url?), "
            "allowed: url, sentinel_master, result_url, namespace, durability",
            "cloudai.toml: node.slots: given 'many', allowed: a whole number from 0 to 100000",
            "SCHED_SLA_MULTIPLIER: scheduling.sla_multiplier: given '3', allowed: a number from 1.5 to 2.5",
            "CLOUDAI_LIMITS__TAIL_KIB: limits.tail_kib: given '-1', allowed: a whole number from 0 to 1024",
            "argument: optimiser.mutation_rate: given nan, allowed: a number from 0 to 1",
        ]
    )


@pytest.mark.parametrize("k", [1.49, 2.51, 0, -2, float("nan"), float("inf"), "two", None, True])
def test_a_multiplier_outside_its_range_stops_the_start(k):
    assert refusal(scheduling={"sla_multiplier": k}) == [
        f"argument: scheduling.sla_multiplier: given {k!r}, allowed: a number from 1.5 to 2.5"
    ]
    (problem,) = refusal(scheduling={"sla_multiplier_by_type": {"mixed": k}})
    assert problem.startswith(f"argument: scheduling.sla_multiplier_by_type.mixed: given {k!r}, allowed: ")
    assert problem.endswith("from 1.5 to 2.5")


@pytest.mark.parametrize("k", [1.5, 2.5])
def test_the_ends_of_the_range_are_allowed(k):
    assert Settings.load(scheduling={"sla_multiplier": k}).scheduling.sla_multiplier == k


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"scheduling": {"sla_multiplier_by_type": {"cpu": 2.0}}}, "there is no cpu"),
        ({"scheduling": {"sla_multiplier_by_type": "mixed"}}, "'mixed' has no '='"),
        ({"scheduling": {"scheduler": "least-loaded"}}, '"rts", "round-robin", or a class of your own'),
        ({"scheduling": {"candidates": 6}}, "a whole number from 1 to 5"),
        ({"scheduling": {"candidates": True}}, "a whole number from 1 to 5"),
        ({"scheduling": {"rollout_percent": 101}}, "a number from 0 to 100"),
        ({"scheduling": {"rts_enabled": "perhaps"}}, "true or false"),
        ({"redis": {"namespace": "a b"}}, "1 to 32 letters, digits and dashes"),
        ({"redis": {"namespace": ""}}, "1 to 32 letters, digits and dashes"),
        ({"redis": {"namespace": "x\n"}}, "1 to 32 letters, digits and dashes"),
        ({"redis": {"durability": "maybe"}}, '"relaxed" or "strict"'),
        ({"redis": {"result_url": "nowhere"}}, "the URL of a Celery result backend, or empty"),
        ({"redis": "redis://x"}, "a table [redis] of settings"),
        ({"limits": {"default_memory": "0MiB"}}, 'a size such as "512MiB"'),
        ({"limits": {"default_memory": "lots"}}, 'a size such as "512MiB"'),
        ({"limits": {"default_cpu": 0}}, "more than 0"),
        ({"node": {"gpus": -1}}, "a whole number from 0 to 1024"),
        ({"node": {"gpus": 1.5}}, "a whole number from 0 to 1024"),
        ({"node": {"memory": "-4GiB"}}, 'a size such as "512MiB"'),
        ({"node": {"labels": {"a b": "c"}}}, "'a b' = 'c' is not one"),
        ({"node": {"labels": {"zone": 1}}}, "a table of text"),
        ({"node": {"labels": "{zone"}}, "a table in JSON"),
        ({"node": {"volumes_allowlist": ["/data", " "]}}, "none of it blank"),
        ({"node": {"volumes_allowlist": '["/data"'}}, "a list in JSON"),
        ({"node": {"docker_url": "localhost"}}, "a URL such as unix:///"),
        ({"node": {"runner": "podman"}}, '"docker" or "process"'),
        ({"optimiser": {"population_size": 3}}, "a whole number from 4 to 1000"),
        ({"optimiser": {"mongo_url": "localhost"}}, "mongodb://"),
        ({"optimiser": {"weight_sla": 0}}, "a number more than 0, at most 1"),
        ({"optimiser": {"weight_energy": -0.1}}, "a number from 0 to 1"),
        ({"optimizer": {"enabled": True}}, "unknown section (did you mean optimiser?)"),
    ],
)
def test_what_is_not_allowed_is_refused_and_says_what_is(overrides, named):
    (problem,) = refusal(**overrides)
    assert named in problem
    assert problem.startswith("argument: ")


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        (
            {"node": {"heartbeat_interval_s": 5, "heartbeat_timeout_s": 5}},
            ["argument: node.heartbeat_timeout_s: given 5.0, allowed: more than heartbeat_interval_s (5)"],
        ),
        (
            {"node": {"lease_s": 10, "lease_margin_s": 10}},
            [
                "argument: node.lease_s: given 10.0, allowed: more than heartbeat_timeout_s (10)",
                "argument: node.lease_margin_s: given 10.0, allowed: less than lease_s (10)",
            ],
        ),
        (
            {"node": {"heartbeat_timeout_s": 200}},
            ["default: node.lease_s: given 120.0, allowed: more than heartbeat_timeout_s (200)"],
        ),
        (
            {"scheduling": {"fallback_alert": 0.5}},
            ["argument: scheduling.fallback_alert: given 0.5, allowed: less than fallback_limit (0.3)"],
        ),
        (
            {"scheduling": {"staleness_s": 2}},
            ["argument: scheduling.staleness_s: given 2.0, allowed: more than node.heartbeat_interval_s (2)"],
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, problems):
    assert refusal(**overrides) == problems


def test_misspelt_names_in_the_environment_are_refused(monkeypatch):
    monkeypatch.setenv("CLOUDAI_REDSI__URL", "redis://x")
    monkeypatch.setenv("CLOUDAI_NODE__SLOT", "1")
    assert sorted(refusal()) == [
        "CLOUDAI_NODE__SLOT: node.slot: unknown setting (did you mean slots?), allowed: "
        + ", ".join(type(Settings().node).model_fields),
        "CLOUDAI_REDSI__URL: redsi: unknown section (did you mean redis?), allowed: "
        "redis, scheduling, learning, limits, node, optimiser",
    ]


def test_one_underscore_where_two_are_needed_is_refused(monkeypatch):
    monkeypatch.setenv("CLOUDAI_REDIS_URL", "redis://:hush@broker/0")
    assert refusal() == [
        "CLOUDAI_REDIS_URL: unknown variable (did you mean CLOUDAI_REDIS__URL?), "
        "allowed: two underscores behind the section"
    ]


def test_other_variables_with_our_prefix_are_left_alone(monkeypatch):
    monkeypatch.setenv("CLOUDAI_TASK_ID", "7")
    monkeypatch.setenv("CLOUDAI_NODE_NAME", "node1")
    monkeypatch.setenv("CLOUDAI_NODE", "node-1")
    assert Settings.load() == Settings()


def test_passwords_are_not_repeated_in_messages():
    (problem,) = refusal(redis={"url": "http://user:hush@host/0"})
    assert "given 'http://user:***@host/0'" in problem


def test_the_error_survives_a_pickle_and_belongs_to_the_tree():
    error = ConfigurationError("a: b: given 1, allowed: 2", "c: d: given 3, allowed: 4")
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy).splitlines() == [
        "configuration refused, 2 problems:",
        "  a: b: given 1, allowed: 2",
        "  c: d: given 3, allowed: 4",
    ]
    assert isinstance(error, CloudAIError)


def test_settings_cannot_be_changed_once_read():
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().redis.url = "redis://other"


def test_the_state_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert state_folder() == tmp_path / "cloudai"


def test_the_default_file_holds_the_defaults():
    """Taking the # away from every default changes nothing; where there is none, the example is valid."""
    active = "\n".join(
        line.removeprefix("#") if line[1:2].isalpha() else line for line in as_toml().splitlines()
    )
    tables = tomllib.loads(active)
    for doc in setting_docs():
        assert doc.key in tables[doc.section]
    assert Settings.load(**tables).node.memory == 16.0
    for doc in setting_docs():
        if not doc.default:
            del tables[doc.section][doc.key]
    assert Settings.load(**tables) == Settings()
    assert all(not values for values in tomllib.loads(as_toml()).values())


def test_the_copies_of_the_default_file_and_of_the_page_are_up_to_date():
    """Refresh with `python -m cloudai.settings.reference`; `--toml` for the two files."""
    packaged = resources.files("cloudai") / "default_config" / "cloudai.toml"
    assert packaged.read_text(encoding="utf-8") == as_toml()
    assert (REPOSITORY / "config" / "cloudai.toml").read_text(encoding="utf-8") == as_toml()
    assert (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8") == as_markdown()


def test_the_parameters_that_ship_are_the_defaults():
    shipped = (REPOSITORY / "config" / "ga_output.json").read_text(encoding="utf-8")
    assert GAParams.from_json(shipped) == GAParams()
    assert shipped.rstrip() == GAParams().to_json().rstrip()


def test_every_setting_is_described_on_the_page():
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    for doc in setting_docs():
        assert f"| `{doc.key}` |" in page
        assert doc.description.endswith("."), doc.key
        assert doc.allowed, doc.key


plain_values = st.recursive(
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(plain_values)
def test_values_are_written_as_toml_reads_them(value):
    assert tomllib.loads(f"value = {toml_value(value)}")["value"] == value
