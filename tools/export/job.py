"""The lines that a model adds to a job, and writing them to a job file.

A job needs its name, the generator, and the feature with the labeller's file: two exports make a whole one, and a judge and a
space for distances make a better one. A file's lines are added to, never replaced. Not here: what Lethe reads in a generator's sidecar where the job does not say it.
"""

import argparse
import json
import os
import re
from pathlib import Path

from .artifact import write_atomically
from .refusal import Refused


def _place(options: argparse.Namespace) -> list[str]:
    """The keys under which the model's lines stand, the group's first."""
    if options.judge:
        return ["evaluate", "judge"]
    labels = ["feature"]
    return {"generator": ["generator"], "classifier": labels, "scorer": labels, "features": ["evaluate", "features"]}[options.kind]


def lines(options: argparse.Namespace, facts: dict) -> str:
    """YAML; what only the user knows stands in capitals unless the options say it."""
    uri = _text(os.path.relpath(options.out, options.job.parent) if options.job else options.out.name)
    if options.kind == "generator":
        return f"generator: {{uri: {uri}}}\n"
    if options.kind == "features":
        return f"evaluate:\n  features: {uri}\n"
    if options.kind == "classifier":
        which = f"{uri}, output: {facts['output']}"
        if facts["classes"] > 1:
            which += f", class: {'CLASS' if options.feature_class is None else options.feature_class}"
    else:
        which = f"{uri}, positive: {_positive(options.positive)}"
    if options.judge:
        return f"evaluate:\n  judge:\n    {options.kind}: {{uri: {which}}}\n"
    return f"feature:\n  name: {_text(options.feature or 'NAME')}\n  {options.kind}: {{uri: {which}}}\n"


def _positive(given: tuple[str, float] | None) -> str:
    return "{above: SCORE}" if given is None else f"{{{given[0]}: {given[1]:g}}}"


def _text(value: str) -> str:
    return value if re.fullmatch(r"[A-Za-z_./][\w./-]*", value) else json.dumps(value)


def complete(options: argparse.Namespace, facts: dict) -> None:
    """Refuses a classifier's class that does not exist or that was not named."""
    if options.kind != "classifier" or facts["classes"] == 1:
        return
    count, which = facts["classes"], options.feature_class
    if which is None and options.job:
        raise Refused(
            f"the classifier has {count} classes: say which is the feature with --class, 0 to {count - 1}"
        )
    if which is not None and not 0 <= which < count:
        raise Refused(f"--class {which}: the classifier has {count} classes, 0 to {count - 1}")


def check(options: argparse.Namespace) -> None:
    """Refuses, before anything is written, a job file that has these lines already."""
    path = options.job
    if path.suffix not in (".yaml", ".yml"):
        raise Refused(f"--job {path}: lines can be added to a YAML file only; name it .yaml")
    if not path.exists():
        return
    group, *rest = _place(options)
    found = path.read_text().splitlines()
    start = _line_of(group, found)
    if start is None:
        return
    if not rest or found[start].partition("#")[0].strip() != f"{group}:":
        raise _taken(path, group, start)
    for number, line in _block(found, start):
        if line.strip().startswith(f"{rest[0]}:"):
            raise _taken(path, f"{group}.{rest[0]}", number)


def _taken(path: Path, key: str, line: int) -> Refused:
    return Refused(
        f"{path} has `{key}:` already, in line {line + 1}: take it out, or choose another --job; without --job "
        "the lines are printed"
    )


def _line_of(group: str, lines: list[str]) -> int | None:
    return next((number for number, line in enumerate(lines) if line.startswith(f"{group}:")), None)


def _block(lines: list[str], start: int) -> list[tuple[int, str]]:
    """The lines that belong to the key in line `start`, with their numbers."""
    block = []
    for number, line in enumerate(lines[start + 1 :], start + 1):
        if line and not line[0].isspace() and not line.startswith("#"):
            break
        block.append((number, line))
    return block


def add(path: Path, text: str) -> None:
    """Adds the lines to the file, which begins with the job's name when it is new; under their group where it is there, which
    [`check`] found to be a block. Raises OSError."""
    start = f"name: {_name(path)}\n"
    try:
        with path.open("x") as file:
            file.write(start + text)
        return
    except FileExistsError:
        before = path.read_text()
    head, *rest = text.splitlines()
    lines = before.splitlines()
    at = _line_of(head.removesuffix(":"), lines) if rest else None
    if at is None:
        with path.open("a") as file:
            file.write(("" if before.endswith("\n") or not before else "\n") + text)
        return
    keys = (line for _, line in _block(lines, at) if line.strip() and not line.lstrip().startswith("#"))
    inside = next(keys, "  ")
    indent = inside[: len(inside) - len(inside.lstrip())]
    lines[at + 1 : at + 1] = [indent + line.removeprefix("  ") for line in rest]
    write_atomically({path: ("\n".join(lines) + "\n").encode()})


def _name(path: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40].strip("-")
    return name or "job"
