"""Which names a node may have: `-n` as Celery has expanded it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

#: Makes a worker of each name, which connects to nothing before it is started.
SCRIPT = """
import json, sys, warnings
from celery.bin.celery import celery
from click.testing import CliRunner
from cloudai.app import CloudAI
from cloudai.errors import ConfigurationError
from cloudai.settings import Settings

warnings.simplefilter("ignore")
app = CloudAI("names", settings=Settings.load(node={"work_dir": sys.argv[2]}))
refused = {"node": [], "worker": []}
for kind, names in refused.items():
    for name in json.loads(sys.argv[1]):
        try:
            app.Worker(hostname=name, node=kind == "node")
        except ConfigurationError as error:
            assert "-n (the node's name)" in str(error), error
            names.append(name)
done = CliRunner().invoke(celery, ["-A", "cloudai", "worker", "-n", "bad\\tname"])
print(json.dumps([refused, done.exit_code, done.stderr.splitlines()[-1]]))
"""

GOOD = ["node1", "gpu-1.rack_2@host.example.com", "_x@h", "mine@b@host", "Łódź-東京@h", "n" * 200 + "@h"]
BAD = ["a b@h", "a\tb@h", "a\nb@h", "a:tasks@h", "../up@h", "/etc@h", "a%h@h", "a{b}@h", "a*@h", "n" * 256 + "@h"]


def test_a_name_is_of_letters_digits_and_a_few_signs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([*GOOD, *BAD]), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    refused, exit_code, told = json.loads(done.stdout.splitlines()[-1])
    # An ordinary worker keeps whatever Celery allows.
    assert refused == {"node": BAD, "worker": []}
    assert exit_code == 2
    assert told == (
        "Error: configuration refused: -n (the node's name): given 'celery@bad\\tname', allowed: letters and digits of "
        "any script, '.', '_', '-' and '@', at most 255 bytes with its host"
    )
