"""What a submitter may ask of a container, and how a wrong field is named."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.containers import ContainerSpec, validate_container
from cloudai.scheduling.errors import InvalidRequest


def refused(**kwargs):
    with pytest.raises(InvalidRequest) as caught:
        validate_container(**{"image": "debian:bookworm", **kwargs})
    json.dumps(caught.value.args)  # Celery stores them
    return caught.value


@pytest.mark.parametrize(
    "image",
    [
        "debian",
        "debian:12-slim",
        "library/debian",
        "localhost/x",
        "localhost:5000/team/x:V1",
        "registry:5000/x",
        "registry.example.com:443/a/b/c_d.e-f",
        "debian@sha256:" + "a" * 64,
        "127.0.0.1:5000/x:latest",
    ],
)
def test_images_that_engines_take(image):
    assert validate_container(image).image == image


@pytest.mark.parametrize(
    "image", ["", " ", "Debian", "debian bookworm", "a/Upper", "x:", "/x", "x/", "a" * 600, "x\0", 7, None]
)
def test_images_that_are_refused(image):
    assert refused(image=image).field == "image"


@pytest.mark.parametrize("command", ["echo hi", [], [""], {"a": 1}, [1], ["a\0b"], ["a", "\ud800"], [b"x"]])
def test_commands_that_are_refused(command):
    assert refused(command=command).field.startswith("command")


@pytest.mark.parametrize(
    "env", [{"A=B": "x"}, {"": "x"}, {"A": 1}, {"A": "\0"}, {1: "x"}, ["A=1"], {"\udc00": "x"}]
)
def test_environments_that_are_refused(env):
    assert refused(env=env).field.startswith("env")


def test_a_secret_given_by_value_is_refused_and_not_repeated():
    error = refused(secrets={"TOKEN": "hunter2"})
    assert "TOKEN" in error.field
    assert "hunter2" not in str(error)


def test_a_name_cannot_be_both_environment_and_secret():
    assert refused(env={"A": "x"}, secrets={"A": "env:B"}).given == "A"


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, 10**400, "5", True])
def test_timeouts_that_are_refused(timeout):
    assert refused(timeout=timeout).field == "timeout"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pull", "sometimes"),
        ("network", "host"),
        ("network", "container:abc"),
        ("workdir", "relative"),
        ("workdir", "/a:b"),
        ("user", "a b"),
        ("user", "-x"),
        ("user", ""),
    ],
)
def test_other_values_that_are_refused(field, value):
    error = refused(**{field: value})
    assert error.field == field
    assert error.given == value


@pytest.mark.parametrize(
    "volumes",
    [
        {"/etc": {"bind": "/x"}},
        {"/data/../etc": {"bind": "/x"}},
        {"//etc": {"bind": "/x"}},
        {"/database": {"bind": "/x"}},
        {"data": {"bind": "/x"}},
        {"/data": {"bind": "x"}},
        {"/data": {"bind": "/"}},
        {"/data": {"bind": "/x", "mode": "rwx"}},
        {"/data": {"bind": "/x", "extra": "y"}},
        {"/data": "/x"},
        {"/data/a": {"bind": "/x"}, "/data/b": {"bind": "/x"}},
        {"/data/a": {"bind": "/x"}, "/data/a/": {"bind": "/y"}},
        {"/models": {"bind": "/x", "mode": "rw"}},
        ["/data:/x"],
    ],
)
def test_volumes_that_are_refused(volumes):
    assert refused(volumes=volumes, volumes_allowlist=("/data", "/models:ro")).field.startswith("volumes")


def test_volumes_are_normalised_and_read_only_unless_said():
    spec = validate_container(
        "x", volumes={"/data/./in/": {"bind": "/in"}}, volumes_allowlist=("/data", "/models:ro")
    )
    assert spec.to_kwargs()["volumes"] == {"/data/in": {"bind": "/in", "mode": "ro"}}


STORES = ("file:///srv/*", "s3://team-*")


@pytest.mark.parametrize("field", ["inputs", "outputs"])
@pytest.mark.parametrize(
    "folders",
    [
        {"/in": "file:///etc"},
        {"/in": "file:///srv/../etc"},
        {"/in": "file:///srv/./x"},
        {"/in": "file:///srv//x"},
        {"/in": "file://host/srv/x"},
        {"/in": "file:///"},
        {"/in": "/srv/x"},
        {"/in": "http://srv/x"},
        {"/in": "s3://other/x"},
        {"/in": "s3://team-a"},
        {"/in": "s3://team-a/"},
        {"/in": "s3://team-a/x?versionId=1"},
        {"/in": "s3://team-a/%2e%2e/x"},
        {"/in": "s3://team-a/a b"},
        {"/in": "S3://team-a/x"},
        {"/in": 7},
        {"/in": "file:///srv/\0"},
        {"in": "file:///srv/x"},
        {"/": "file:///srv/x"},
        {"/in/../..": "file:///srv/x"},
        {"/a/../in": "file:///srv/x"},
        {"/in": "file:///srv/x", "/in/": "file:///srv/y"},
        {"/in": "file:///srv/x", "/in/deep": "file:///srv/y"},
        {7: "file:///srv/x"},
        ["/in"],
        "/in",
    ],
)
def test_inputs_and_outputs_that_are_refused(field, folders):
    assert refused(**{field: folders}, stores_allowlist=STORES).field.startswith(field)


def test_inputs_and_outputs_each_have_a_place_of_their_own():
    where = {"inputs": {"/in": "file:///srv/a"}, "outputs": {"/out": "s3://team-x/b/c/"}}
    spec = validate_container("x", **where, stores_allowlist=STORES)
    assert spec.to_kwargs()["outputs"] == {"/out": "s3://team-x/b/c"}
    assert ContainerSpec.from_kwargs(spec.to_kwargs(), stores_allowlist=STORES) == spec
    allowed = {"stores_allowlist": STORES, "volumes_allowlist": ("/data",)}
    assert refused(inputs=where["inputs"], outputs={"/in/x": "file:///srv/b"}, **allowed).field == "outputs['/in/x']"
    assert refused(inputs=where["inputs"], volumes={"/data": {"bind": "/in"}}, **allowed).given == "/in"
    assert refused(inputs=where["inputs"], volumes={"/data": {"bind": "/in/x"}}, **allowed).given == "/in/x"
    assert refused(inputs={"/in/x": "file:///srv/a"}, volumes={"/data": {"bind": "/in"}}, **allowed).given == "/in/x"
    same = refused(outputs={"/a": "file:///srv/a", "/b": "file:///srv/a/b"}, **allowed)
    assert (same.field, same.given) == ("outputs['/b']", "file:///srv/a/b")


def test_what_no_store_allows_and_a_url_with_a_key_in_it():
    assert "empty" in refused(inputs={"/in": "file:///srv/a"}).allowed
    assert "file:///srv/*" in refused(inputs={"/in": "file:///opt/a"}, stores_allowlist=STORES).allowed
    error = refused(inputs={"/in": "s3://key:hunter2@team-a/x"}, stores_allowlist=STORES)
    assert "hunter2" not in str(error)


def test_operators_lists_of_networks_and_images():
    assert validate_container("x", network="lab", networks_allowlist=("lab",)).network == "lab"
    assert refused(image="evil/x", images_allowlist=("team/*",)).field == "image"
    assert validate_container("team/x", images_allowlist=("team/*",)).image == "team/x"


def test_pinned_images_are_named_by_their_digest():
    digest = "sha256:" + "0123456789abcdef" * 4
    for image in ("team/x", "team/x:1.2", "team/x@sha512:" + "0" * 128):
        assert "digest" in refused(image=image, images_pinned=True).allowed
    for image in (f"team/x@{digest}", f"registry.example.com:5000/team/x:1.2@{digest}"):
        assert validate_container(image, images_pinned=True).image == image


def test_the_size_of_all_arguments_is_limited():
    assert refused(command=["x", "y" * 70_000]).field == "arguments"
    assert refused(env={"A": "é" * 40_000}).field == "arguments"  # bytes, not characters
    assert validate_container("x", ["x", "y" * 70_000], max_argument_bytes=100_000).command is not None


def test_an_unknown_or_missing_keyword_in_a_message_is_refused():
    with pytest.raises(InvalidRequest) as unknown:
        ContainerSpec.from_kwargs({"image": "x", "privileged": True})
    assert unknown.value.field == "privileged"
    with pytest.raises(InvalidRequest) as missing:
        ContainerSpec.from_kwargs({})
    assert missing.value.field == "image"


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(
    command=st.none() | st.lists(text, min_size=1).filter(lambda words: words[0]),
    env=st.dictionaries(text.filter(lambda name: name and "=" not in name), text, max_size=4),
    timeout=st.none() | st.floats(0.001, 1e6),
    pull=st.sampled_from(["missing", "always", "never"]),
)
def test_a_specification_survives_the_message(command, env, timeout, pull):
    spec = validate_container("debian:12", command, env=env, timeout=timeout, pull=pull)
    assert ContainerSpec.from_kwargs(json.loads(json.dumps(spec.to_kwargs()))) == spec


@given(
    st.dictionaries(
        st.sampled_from(["image", "command", "env", "volumes", "timeout", "user"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    )
)
def test_junk_in_a_message_raises_nothing_but_invalid_request(kwargs):
    try:
        ContainerSpec.from_kwargs(kwargs)
    except InvalidRequest as error:
        json.dumps(error.args)
