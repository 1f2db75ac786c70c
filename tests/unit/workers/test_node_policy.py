"""The node does not take the submitter's word: links, "..", secrets and lists are judged where they lead."""

import pytest

from cloudai.containers import Refused, validate_container
from cloudai_workers.runners.policy import NodePolicy, admit


def volume(path, mode="ro"):
    # The producer's list allows everything; only the node's counts here.
    return validate_container(
        "x", volumes={str(path): {"bind": "/in", "mode": mode}}, volumes_allowlist=("/",)
    )


def test_a_folder_below_an_allowed_one_is_mounted(tmp_path):
    inside = tmp_path / "data" / "a"
    inside.mkdir(parents=True)
    admitted = admit(volume(inside, "rw"), NodePolicy(volumes=(str(tmp_path / "data"),)))
    assert admitted.volumes[0].host == str(inside.resolve())


def test_a_link_that_leads_out_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "private").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "private")
    with pytest.raises(Refused, match="private"):
        admit(volume(tmp_path / "data" / "link"), NodePolicy(volumes=(str(tmp_path / "data"),)))


def test_a_link_that_stays_inside_is_resolved(tmp_path):
    (tmp_path / "data" / "real").mkdir(parents=True)
    (tmp_path / "data" / "link").symlink_to("real")
    admitted = admit(volume(tmp_path / "data" / "link"), NodePolicy(volumes=(str(tmp_path / "data"),)))
    assert admitted.volumes[0].host.endswith("/real")


def test_an_allowed_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "disk2").mkdir()
    (tmp_path / "data").symlink_to("disk2")
    assert admit(volume(tmp_path / "data"), NodePolicy(volumes=(str(tmp_path / "data"),))).volumes


def test_read_only_lists_missing_paths_and_an_empty_list(tmp_path):
    allowed = str(tmp_path)
    with pytest.raises(Refused):
        admit(volume(tmp_path, "rw"), NodePolicy(volumes=(f"{allowed}:ro",)))
    with pytest.raises(Refused, match="no such path"):
        admit(volume(tmp_path / "absent"), NodePolicy(volumes=(allowed,)))
    with pytest.raises(Refused, match="none"):
        admit(volume(tmp_path), NodePolicy())


def test_images_and_networks_are_judged_again():
    with pytest.raises(Refused, match="image"):
        admit(validate_container("evil/x"), NodePolicy(images=("team/*",)))
    with pytest.raises(Refused, match="network"):
        admit(validate_container("x", network="lab", networks_allowlist=("lab",)), NodePolicy())


def test_secrets_are_read_on_the_node_when_allowed(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("s3cret\n")
    monkeypatch.setenv("JOB_KEY", "k")
    spec = validate_container("x", secrets={"A": f"file:{tmp_path}/token", "B": "env:JOB_KEY"})
    policy = NodePolicy(secrets=(f"file:{tmp_path.resolve()}/*", "env:JOB_*"))
    assert dict(admit(spec, policy).env) == {"A": "s3cret", "B": "k"}


@pytest.mark.parametrize("reference", ["file:{folder}/../outside", "file:{folder}/link", "env:HOME"])
def test_secrets_that_lead_elsewhere_are_refused(tmp_path, reference):
    folder = tmp_path / "secrets"
    folder.mkdir()
    (tmp_path / "outside").write_text("x")
    (folder / "link").symlink_to(tmp_path / "outside")
    spec = validate_container("x", secrets={"A": reference.format(folder=folder)})
    with pytest.raises(Refused, match="secret A"):
        admit(spec, NodePolicy(secrets=(f"file:{folder.resolve()}/*", "env:JOB_*")))


def test_a_store_is_judged_where_its_links_lead(tmp_path):
    (tmp_path / "disk2" / "sets").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (tmp_path / "srv").symlink_to("disk2")
    (tmp_path / "disk2" / "out").symlink_to(tmp_path / "private")
    everything = ("file:///*", "s3://*")

    def asked(url):
        return validate_container("x", inputs={"/in": url}, stores_allowlist=everything)

    policy = NodePolicy(stores=(f"file://{tmp_path}/srv/*", "s3://team-*"))
    admitted = admit(asked(f"file://{tmp_path}/srv/sets"), policy)
    assert admitted.inputs == (("/in", f"file://{(tmp_path / 'disk2' / 'sets').resolve()}"),)
    assert admit(asked("s3://team-a/x"), policy).inputs == (("/in", "s3://team-a/x"),)
    with pytest.raises(Refused, match="private"):
        admit(asked(f"file://{tmp_path}/srv/out"), policy)
    with pytest.raises(Refused, match="stores_allowlist"):
        admit(asked("s3://other/x"), policy)
    with pytest.raises(Refused, match="none"):
        admit(asked("s3://team-a/x"), NodePolicy())
    one = NodePolicy(stores=(f"file://{tmp_path}/srv/sets",))
    assert admit(asked(f"file://{tmp_path}/srv/sets"), one).inputs
    assert admit(asked("file:///srv"), NodePolicy(stores=("file:///*",))).inputs
