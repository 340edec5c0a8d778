"""`make table`: every example job at three seeds, by its defaults and by the paper's rule, as printed and tuned; for docs/results.md.

With --digits, each of the ten digits is removed from both generators instead, by the defaults, at one seed unless --seeds says more; with
--parts, one digit with a part of training taken away at a time.

Each run is printed as a line of JSON and put on record as it ends; the tables of docs/results.md are written from the record. Every figure is
by the job's judge, which took no part.
"""

import argparse
import datetime
import json
import pathlib
import tempfile

import yaml

import record
from job import ROOT, figure, run_lethe

EXAMPLES = ROOT / "examples" / "mnist"
JOBS = ["thick-vae", "thick-dcgan", "slant-vae", "slant-dcgan", "digit-dcgan"]
DIGITS = [f"digit-{digit}-{generator}" for generator in ("dcgan", "vae") for digit in range(10)]
# Moon, Cho and Kim (AAAI 2024) as printed: every latent beyond the mean projection is edited, by the raw vector; no term of ours.
PAPER = {"method": "mean_difference", "threshold": "pooled", "selection": "projection", "raw": True}
PAPER_LOSS = {"alpha": 3, "labeller_term": 0, "squares": 0, "contrast": 0, "anchor": 0, "average": 0, "near": 0, "strength": 1}
RULES = {
    "defaults": {},
    "quick": {"unlearn": {"effort": "quick"}},
    "paper, literal": {"direction": PAPER, "unlearn": PAPER_LOSS},
    # The same rule with what this repository knows: a better direction, a fixed threshold, its unit vector, the measured rate.
    "paper, tuned": {
        "direction": {"method": "logistic", "threshold": "midpoint", "selection": "projection"},
        "unlearn": PAPER_LOSS,
    },
}
# What training does beyond comparing images, one thing taken away at a time, and all of them.
WITHOUT = {
    "a large pool": {"pool": {"latents": 6000}},
    "time to fit": {"unlearn": {"steps": 400}},
    "an average": {"unlearn": {"average": 0}},
    "more of what is near": {"unlearn": {"near": 0}},
    "a labeller term": {"unlearn": {"labeller_term": 0}},
    "a measured rate": {"unlearn": {"lr": 0.001}},
    "a measured rate and its guard": {"unlearn": {"lr": 0.001, "drift": 1}},
    "strength": {"unlearn": {"strength": 1}},
    "contrast": {"unlearn": {"contrast": 0}},
    "anchor": {"unlearn": {"anchor": 0}},
    "squares": {"unlearn": {"squares": 0}},
}
ALL = {group: {key: value for change in WITHOUT.values() for key, value in change.get(group, {}).items()} for group in ("pool", "unlearn")}
PARTS = {f"without {part}": change for part, change in (WITHOUT | {"any of these": ALL}).items()}
FIGURES = {
    "remaining_share": ("feature", "remaining_share"),
    "missed": ("remaining", "missed"),
    "edit": ("remaining", "edit"),
    "fit": ("remaining", "fit"),
    "new": ("remaining", "new"),
    "over_rejection": ("fidelity", "distance_over_rejection"),
    "class_changed": ("locality", "class_changed"),
    "ideal_over_rejection": ("fidelity", "ideal_distance_over_rejection"),
    "ideal_class_changed": ("edits", "ideal_class_changed"),
    "typical": ("edits", "typical"),
}


def absolute(value):
    """Paths of a spec made absolute, so that it may be run from anywhere."""
    if isinstance(value, dict):
        return {key: str((EXAMPLES / item).resolve()) if key in ("uri", "features") and isinstance(item, str) else absolute(item) for key, item in value.items()}
    return value


def spec_of(job: str) -> dict:
    """An example's, or that of digit-dcgan for another digit and generator."""
    if job in JOBS:
        return absolute(yaml.safe_load((EXAMPLES / f"{job}.yaml").read_text()))
    _, digit, generator = job.split("-")
    spec = spec_of("digit-dcgan")
    spec |= {"name": job, "generator": spec_of(f"thick-{generator}")["generator"]}
    spec["feature"]["classifier"]["class"] = spec["evaluate"]["judge"]["classifier"]["class"] = int(digit)
    return spec


def run(job: str, rule: str, seeds: list[int], slots: int) -> None:
    for seed in seeds:
        spec = spec_of(job)
        spec["sample"] = {"seed": seed}
        spec |= (RULES | PARTS)[rule]
        with tempfile.TemporaryDirectory() as folder:
            result = run_lethe(spec, pathlib.Path(folder), slots=slots)
        found = {"job": job, "rule": rule, "seed": seed, "date": datetime.date.today().isoformat(), "slots": slots}
        found |= {"edited_share": result["direction"]["edited_share"], "strength": result["train"]["strength"]}
        found |= {name: figure(result, *place)["after"] for name, place in FIGURES.items()}
        found["seconds"] = sum(result["seconds"].values())
        print(json.dumps(found), flush=True)
        record.append(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--job", choices=JOBS + DIGITS, action="append")
    parser.add_argument("--rule", choices=RULES | PARTS, action="append")
    parser.add_argument("--slots", type=int, default=2)
    arguments = parser.parse_args()
    jobs, rules, seeds = (JOBS, list(RULES), [1, 2, 3])
    if arguments.digits:
        jobs, rules, seeds = (DIGITS, ["defaults"], [1])
    if arguments.parts:
        jobs, rules, seeds = (["digit-3-vae"], ["defaults", *PARTS], [7])
    for job in arguments.job or jobs:
        for rule in arguments.rule or rules:
            run(job, rule, arguments.seeds or seeds, arguments.slots)
    record.write_page()


if __name__ == "__main__":
    main()
