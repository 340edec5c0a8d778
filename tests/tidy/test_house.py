"""The rules of the house that no compiler knows: who may depend on whom, module docs, words, and what comes in from outside.

The crates' table is read from ARCHITECTURE.md, so that it stays true. Not here: formatting, lints and the style of the .proto files
(`make lint`); known vulnerabilities, for which a database would have to be reachable.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# One of these is enough; a crate under several at once needs all of them.
LICENCES = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0",
    "Unicode-3.0", "Unlicense", "Zlib",
}  # fmt: skip

# Crates of which others still want an older version: name -> versions that are linked into our programs. Shorter is better.
SEVERAL = {
    "base64": 2, "block-buffer": 2, "cpufeatures": 2, "crypto-common": 2, "digest": 2, "getrandom": 3, "hashbrown": 2, "miniz_oxide": 2,
    "rand": 3, "rand_chacha": 3, "rand_core": 3, "safetensors": 2, "sha2": 2, "syn": 3, "synstructure": 2, "thiserror": 2, "thiserror-impl": 2, "untrusted": 2,
}  # fmt: skip

# Words of a private dialect, each with the field's word for it.
WORDS = {
    "Way": "SessionHandle",
    "JobLook": "JobSnapshot",
    "Hungry": "Schedulable",
    "hungry": "schedulable",
    "disturbed": "dirty",
    "Shelf": "Recent",
    "Eyes": "Evaluator",
    "Lent": "PooledTensors",
    "Kept": "ResidentState",
    "Doom": "KillReason",
}
EMPTY_NAMES = {"util", "utils", "common", "helpers", "misc"}


def listed(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def metadata() -> dict:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_crates_depend_on_each_other_as_architecture_says(metadata):
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text[text.index("| crate | may use |") :].split("\n\n")[0].splitlines()[2:]
    said = {}
    for row in table:
        name, uses = (cell.strip() for cell in row.strip("|").split("|"))
        said[name.strip("`")] = set(re.findall(r"`([^`]+)`", uses))
    found = {}
    for package in metadata["packages"]:
        if package["id"] in metadata["workspace_members"]:
            uses = {d["name"].removeprefix("lethe-") for d in package["dependencies"] if d["kind"] is None and d.get("path")}
            found[package["name"].removeprefix("lethe-")] = uses
    assert found == said


def test_every_module_says_what_it_is():
    silent = [path for path in listed("*.rs") if not path.read_text().startswith("//!")]
    silent += [path for path in listed("*.py") if path.read_text().strip() and not path.read_text().startswith('"""')]
    assert silent == []


def test_no_file_is_named_after_nothing():
    assert [path for path in listed("*.rs", "*.py") if path.stem in EMPTY_NAMES] == []


def test_the_dialect_is_gone():
    used = []
    for path in listed("*.rs"):
        names = set(re.findall(r"[A-Za-z_]\w*", re.sub(r'//.*|"(?:\\.|[^"\\])*"', "", path.read_text())))
        used += [f"{path.relative_to(ROOT)}: {word}, say {WORDS[word]}" for word in sorted(names & WORDS.keys())]
    assert used == []


def holds(expression: str) -> bool:
    """Whether the licences that we take satisfy an SPDX expression, or one with `/` for OR."""
    text = re.sub(r"\bWITH\s+\S+", "", expression.replace("/", " OR "))
    text = re.sub(r"[A-Za-z0-9][\w.+-]*", lambda m: {"OR": "or", "AND": "and"}.get(m[0], str(m[0] in LICENCES)), text)
    return eval(text, {"__builtins__": {}})  # True, False, and, or, brackets: nothing else is left


def test_licences_are_permissive(metadata):
    assert holds("MIT/Apache-2.0") and holds("GPL-3.0 OR (MIT AND Zlib)") and not holds("MIT AND GPL-3.0")
    refused = {f"{p['name']} {p['version']}: {p['license']}" for p in metadata["packages"] if p["license"] and not holds(p["license"])}
    unknown = {p["name"] for p in metadata["packages"] if not p["license"] and not p["license_file"]}
    assert (refused, unknown) == (set(), set())


def test_crates_come_from_the_registry_alone(metadata):
    sources = {package["source"] for package in metadata["packages"] if package["source"]}
    assert len(sources) == 1 and all(source.startswith("registry+") for source in sources), sources


def test_no_further_crate_is_linked_in_two_versions(metadata):
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    reached, new = set(), list(metadata["workspace_members"])
    while new:
        at = new.pop()
        if at not in reached:
            reached.add(at)
            new += [d["pkg"] for d in nodes[at]["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])]
    versions: dict[str, set[str]] = {}
    for package in metadata["packages"]:
        if package["id"] in reached:
            versions.setdefault(package["name"], set()).add(package["version"])
    assert {name: len(found) for name, found in sorted(versions.items()) if len(found) > 1} == SEVERAL
