"""The command: options, conversion, writing, the report. See README.md beside this file for worked examples."""

import sys
import warnings
from pathlib import Path

from . import environment
from .options import parse
from .refusal import Refused

REFUSED = 1
CHECKOUT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    lacking = environment.problem(CHECKOUT)
    if lacking:
        return _refuse(lacking)
    # Only now: importing torch takes seconds, and what is wrong above needs none of it.
    from . import artifact, convert, job

    sidecar = options.out.with_name(options.out.name + ".json")
    writing = options.out
    try:
        if options.job:
            job.check(options)
        if not options.force:
            artifact.refuse_to_replace(options.out, sidecar)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, about TorchScript's age and the like
            exported = convert.export(options)
        if not options.force:  # once more, for that took a while
            artifact.refuse_to_replace(options.out, sidecar)
        replace = options.force or options.out.exists()
        artifact.write_atomically({options.out: exported.model, sidecar: exported.description}, replace)
        if options.job:
            writing = options.job
            job.add(options.job, exported.job)
    except Refused as refusal:
        return _refuse(str(refusal))
    except OSError as error:
        made = "nothing was written" if writing == options.out else f"{options.out} is written"
        return _refuse(f"cannot write {writing}: {_reason(error, writing)}; {made}")
    for name, text in exported.report.lines:
        print(f"  {name:<11} {text}")
    for text in exported.report.warnings:
        print(f"  warning     {text}", file=sys.stderr)
    print(f"wrote {options.out} ({len(exported.model):,} bytes) and {sidecar}")
    if options.job:
        print(f"added to {options.job}:")
    else:
        print("its lines in a job beside it (docs/job-spec.md; --job FILE.yaml adds them to one):")
    print("\n" + "".join(f"    {line}\n" for line in exported.job.splitlines()))
    return 0


def _reason(error: OSError, path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}, make it first"
    return f"{error.strerror or error}: make room, or choose another place"


def _refuse(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return REFUSED
