"""The lines that a model adds to a job, and writing them to a job file.

A job needs its name, the generator, and the feature with the labeller's file: two exports make a whole one. A file's
lines are added to, never replaced. Not here: what Lethe reads in a generator's sidecar where the job does not say it.
"""

import argparse
import json
import os
import re
from pathlib import Path

from .refusal import Refused

KEYS = {"generator": "generator", "classifier": "feature", "scorer": "feature", "features": "evaluate"}


def lines(options: argparse.Namespace, facts: dict) -> str:
    """YAML; what only the user knows stands in capitals unless the options say it."""
    uri = _text(os.path.relpath(options.out, options.job.parent) if options.job else options.out.name)
    if options.kind == "generator":
        return f"generator: {{uri: {uri}}}\n"
    if options.kind == "features":
        return f"evaluate: {{features: {uri}}}\n"
    if options.kind == "classifier":
        which = f"{uri}, output: {facts['output']}"
        if facts["classes"] > 1:
            which += f", class: {'CLASS' if options.feature_class is None else options.feature_class}"
    else:
        which = f"{uri}, positive: {_positive(options.positive)}"
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


def check(path: Path, kind: str) -> None:
    """Refuses, before anything is written, a job file that has these lines already."""
    if path.suffix not in (".yaml", ".yml"):
        raise Refused(f"--job {path}: lines can be added to a YAML file only; name it .yaml")
    if not path.exists():
        return
    key = KEYS[kind]
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith(f"{key}:"):
            raise Refused(
                f"{path} has `{key}:` already, in line {number}: take it out, or choose another --job; without --job "
                "the lines are printed"
            )


def add(path: Path, text: str) -> None:
    """Adds the lines to the file, which begins with the job's name when it is new. Raises OSError."""
    start = f"name: {_name(path)}\n"
    try:
        with path.open("x") as file:
            file.write(start + text)
    except FileExistsError:
        before = path.read_text()
        with path.open("a") as file:
            file.write(("" if before.endswith("\n") or not before else "\n") + text)


def _name(path: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40].strip("-")
    return name or "job"
