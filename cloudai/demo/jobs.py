"""What the demo runs: small real jobs on real text, each of which checks its own answer and leaves a witness.

The text is the source of the Python library that runs the demo. A job is a shell script over tools that every
machine and the demo's image have, so it does the same work in a container and as a process. It appends a line
to a file of its own when it starts and another when its answer was right: evidence that neither Redis nor
Celery wrote.
"""

from __future__ import annotations

import hashlib
import random
import re
import sysconfig
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Size of one text, bytes; the large text is all of them together.
TEXT_BYTES = 1_500_000
TEXTS = 4

#: The lines of a witness.
STARTED = "started"
DONE = "done"

#: Task types of twelve jobs; a wave is made of such rounds.
ROUND = (
    *("cpu-light",) * 4,
    *("mixed",) * 2,
    *("cpu-heavy",) * 2,
    *("memory-heavy",) * 2,
    "gpu-inference",
    "gpu-training",
)

_SEARCHED = "return"

#: All bytes but these are left out of the texts: tools differ in whether a form feed parts words, and what a letter is.
_PLAIN = b"\t\n" + bytes(range(0x20, 0x7F))
_NOT_PLAIN = bytes(set(range(256)) - set(_PLAIN))

# busybox awk may come without powers and roots, so the scripts add, multiply and divide only.
_HASH_CHAIN = """\
digest=start
for _ in 1 2 3 4 5 6; do
  digest=$({ echo "$digest"; cat "$1"; } | sha256sum)
done
test "$digest" = "$2  -"
"""
_SEARCH = """\
found=$(awk -v word="$2" 'index($0, word) { lines++ } { words += NF } END { print lines, words }' "$1")
test "$found" = "$3"
test "$(grep -cF "$2" "$1")" = "${3% *}"
"""
_COMPRESS = 'gzip <"$1" >"$scratch/text.gz"; gzip -dc "$scratch/text.gz" | cmp - "$1"'
_SORT = """\
tr -cs 'A-Za-z' '\\n' <"$1" | grep . | sort >"$scratch/sorted"
sort -c "$scratch/sorted"
test "$(grep -c . "$scratch/sorted")" -eq "$2"
"""
_COUNT_WORDS = """\
most=$(tr -cs 'A-Za-z' '\\n' <"$1" | grep . | sort | uniq -c | sort -rn | head -n 1 | awk '{ print $1 }')
test "$most" -eq "$2"
"""
# C = A B, checked as Freivalds does: C x = A (B x) for a random x.
_MATRIX = """\
awk -v n="$1" -v seed="$2" '
function next_value() { seed = (seed * 1103 + 12345) % 65536; return seed % 100 }
BEGIN {
  for (i = 0; i < n; i++) for (j = 0; j < n; j++) { a[i, j] = next_value(); b[i, j] = next_value() }
  for (i = 0; i < n; i++) for (j = 0; j < n; j++) {
    sum = 0
    for (k = 0; k < n; k++) sum += a[i, k] * b[k, j]
    c[i, j] = sum
  }
  for (i = 0; i < n; i++) x[i] = next_value()
  for (i = 0; i < n; i++) { bx[i] = 0; for (j = 0; j < n; j++) bx[i] += b[i, j] * x[j] }
  for (i = 0; i < n; i++) {
    left = 0; right = 0
    for (j = 0; j < n; j++) { left += c[i, j] * x[j]; right += a[i, j] * bx[j] }
    if (left != right) exit 1
  }
}'
"""
# Gradient descent on y = slope x + 1, which must find the slope.
_TRAIN = """\
awk -v steps="$1" -v slope="$2" '
BEGIN {
  n = 50
  for (i = 0; i < n; i++) { x[i] = i / n; y[i] = slope * x[i] + 1 }
  for (s = 0; s < steps; s++) {
    dw = 0; db = 0
    for (i = 0; i < n; i++) { e = w * x[i] + b - y[i]; dw += e * x[i]; db += e }
    w -= dw / n; b -= db / n
  }
  off = w - slope
  if (off < 0) off = -off
  exit off < 0.01 ? 0 : 1
}'
"""

#: A job pauses so long at most, seconds: on a machine that is busy with other things the demo must end in time too.
LONGEST_PAUSE_S = 4

# The nodes of the demo are one machine, so they declare to be unequally fast, and a job pauses accordingly: where PACE
# is 2, it takes twice as long as its work did.
_FRAME = f"""\
set -e
echo {STARTED} >>"$WITNESS"
scratch=${{TMPDIR:-/tmp}}
clock() {{ awk '{{ print $1 }}' /proc/uptime 2>/dev/null || date +%%s; }}
began=$(clock)
%s
pause=$(awk -v from="$began" -v to="$(clock)" -v pace="${{PACE:-1}}" \
  'BEGIN {{ pause = (to - from) * (pace - 1); printf "%%.2f", pause < {LONGEST_PAUSE_S} ? pause : {LONGEST_PAUSE_S} }}')
sleep "$pause" || sleep 1
echo {DONE} >>"$WITNESS"
"""


@dataclass(frozen=True, slots=True)
class Text:
    """A file of the demo, with the answers that its jobs must find."""

    path: Path
    #: Runs of letters.
    words: int
    #: How often the most frequent word occurs.
    most_frequent: int


@dataclass(frozen=True, slots=True)
class DemoJob:
    """One job before it is submitted."""

    #: Unique in the demo; the name of its witness.
    key: str
    #: From 1.
    wave: int
    #: The type that it is to have, asked for or inferred.
    task_type: str
    #: What it does, in a word.
    work: str
    script: str
    arguments: tuple[str, ...]
    resources: Mapping[str, Any]
    #: Whether `task_type` is asked for; else it follows from the resources (spec section 1).
    explicit_type: bool

    @property
    def command(self) -> list[str]:
        """The command, for `run_container`."""
        return ["sh", "-c", _FRAME % self.script.rstrip("\n"), self.work, *self.arguments]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `apply_async`."""
        asked: dict[str, Any] = {"resources": dict(self.resources), "family": self.work}
        return asked | {"task_type": self.task_type} if self.explicit_type else asked


@dataclass(frozen=True, slots=True)
class Texts:
    """The files that the jobs work on."""

    parts: tuple[Text, ...]
    #: All parts in one file.
    large: Path
    #: The last digest of the chain over it.
    hash_chain: str
    #: Lines of it that hold the searched word, and its words parted by blanks, as the search prints them.
    found: str


def write_texts(folder: Path) -> Texts:
    """Write the texts into the folder. OSError when the library's source or the folder is out of reach."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = TEXTS * TEXT_BYTES
    library = Path(sysconfig.get_paths()["stdlib"])
    source = bytearray()
    for path in sorted(library.rglob("*.py")):
        source += path.read_bytes().translate(None, _NOT_PLAIN)
        if len(source) >= needed:
            break
    if not source:
        raise FileNotFoundError(f"{library} holds no Python source, which the demo works on")
    source *= -(-needed // len(source))
    contents = [bytes(source[i * TEXT_BYTES : (i + 1) * TEXT_BYTES]) for i in range(TEXTS)]
    parts = tuple(_write(folder / f"text-{i}.txt", content) for i, content in enumerate(contents))
    whole = b"".join(contents)
    large = folder / "large.txt"
    large.write_bytes(whole)
    lines = sum(_SEARCHED.encode() in line for line in whole.split(b"\n"))
    words = len(re.findall(rb"[^ \t\n]+", whole))
    return Texts(parts, large, _hash_chain(whole), f"{lines} {words}")


def _write(path: Path, content: bytes) -> Text:
    path.write_bytes(content)
    words = Counter(re.findall(rb"[A-Za-z]+", content))
    return Text(path=path, words=words.total(), most_frequent=words.most_common(1)[0][1])


def _hash_chain(content: bytes) -> str:
    """What the hash job finds: each digest covers the line that the one before printed, and the content."""
    line = b"start"
    for _ in range(6):
        line = hashlib.sha256(line + b"\n" + content).hexdigest().encode() + b"  -"
    return line.decode().removesuffix("  -")


def make_wave(number: int, count: int, texts: Texts, seed: int) -> list[DemoJob]:
    """`count` jobs in an order that depends on the seed only; twelve or more hold all six types."""
    chance = random.Random(f"{seed}/{number}")
    types = [ROUND[i % len(ROUND)] for i in range(count)]
    chance.shuffle(types)
    seen: Counter[str] = Counter()
    jobs = []
    for i, task_type in enumerate(types):
        jobs.append(_job(f"wave{number}-{i:03d}", number, task_type, seen[task_type], texts, chance))
        seen[task_type] += 1
    return jobs


def _job(key: str, wave: int, task_type: str, turn: int, texts: Texts, chance: random.Random) -> DemoJob:
    """The job of a type whose `turn`-th it is; types with two kinds of work take turns."""
    text = chance.choice(texts.parts)
    large = str(texts.large)
    path = str(text.path)
    work: str
    arguments: tuple[str, ...]
    explicit = False
    match task_type, turn % 2:
        case "cpu-light", 0:
            work, script, arguments = "hash-chain", _HASH_CHAIN, (large, texts.hash_chain)
            resources = {"cpu": 0.5, "memory": "256MiB"}
        case "cpu-light", _:
            work, script, arguments = "search", _SEARCH, (large, _SEARCHED, texts.found)
            resources = {"cpu": 0.5, "memory": "256MiB"}
        case "mixed", _:
            work, script, arguments = "count-words", _COUNT_WORDS, (path, str(text.most_frequent))
            resources = {"memory": "512MiB"}
        case "cpu-heavy", _:
            work, script, arguments = "compress", _COMPRESS, (large,)
            resources, explicit = {"cpu": 2, "memory": "512MiB"}, True
        case "memory-heavy", 0:
            # Over 8 GiB the type is inferred, and only a large node holds it.
            work, script, arguments = "sort", _SORT, (path, str(text.words))
            resources = {"cpu": 0.5, "memory": "9GiB"}
        case "memory-heavy", _:
            work, script, arguments = "sort", _SORT, (path, str(text.words))
            resources, explicit = {"cpu": 0.5, "memory": "3GiB"}, True
        case "gpu-inference", _:
            work, script, arguments = "matrix-product", _MATRIX, ("60", str(chance.randrange(65536)))
            resources = {"cpu": 0.5, "memory": "256MiB", "gpu": 0.5}
        case "gpu-training", _:
            work, script, arguments = "train", _TRAIN, ("10000", str(chance.randrange(2, 9)))
            resources, explicit = {"cpu": 2, "memory": "1GiB", "gpu": 1}, True
        case _:
            raise ValueError(f"no demo job of type {task_type}")
    return DemoJob(key, wave, task_type, work, script, arguments, resources, explicit)


def starts_and_ends(witness: Path) -> tuple[int, int]:
    """How often a job began and how often it found its answer, as its witness says."""
    try:
        lines = witness.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0, 0
    return lines.count(STARTED), lines.count(DONE)
