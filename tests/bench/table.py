"""`make table`: every example job at three seeds with the paper's literal rule and with ours; writes docs/results.md's table.

Prints one JSON line per run as it goes, the table in Markdown at the end.
"""

import argparse
import copy
import json
import pathlib
import statistics
import tempfile

import yaml

from job import ROOT, figure, run_lethe

EXAMPLES = ROOT / "examples" / "mnist"
JOBS = ["thick-vae", "thick-dcgan", "slant-vae", "slant-dcgan", "digit-dcgan"]
RULES = {
    "paper, literal": {"method": "mean_difference", "threshold": "pooled", "selection": "projection", "raw": True},
    "projection, midpoint": {"method": "mean_difference", "threshold": "midpoint", "selection": "projection"},
    "ours": None,
}


def absolute(value):
    """Paths of a spec made absolute, so that it may be run from anywhere."""
    if isinstance(value, dict):
        return {key: str((EXAMPLES / item).resolve()) if key in ("uri", "features") and isinstance(item, str) else absolute(item) for key, item in value.items()}
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--job", choices=JOBS, action="append")
    parser.add_argument("--rule", choices=RULES, action="append")
    parser.add_argument("--slots", type=int, default=2)
    arguments = parser.parse_args()
    rows = []
    for job in arguments.job or JOBS:
        for rule in arguments.rule or RULES:
            runs = []
            for seed in range(1, arguments.seeds + 1):
                spec = absolute(copy.deepcopy(yaml.safe_load((EXAMPLES / f"{job}.yaml").read_text())))
                spec["sample"]["seed"] = seed
                if RULES[rule] is not None:
                    spec["direction"] = RULES[rule]
                with tempfile.TemporaryDirectory() as folder:
                    result = run_lethe(spec, pathlib.Path(folder), slots=arguments.slots)
                feature, distance = figure(result, "feature", "share"), figure(result, "fidelity", "feature_free_distance")
                run = {
                    "job": job,
                    "rule": rule,
                    "seed": seed,
                    "edited_share": result["direction"]["edited_share"],
                    "before": feature["before"],
                    "after": feature["after"],
                    "remaining_share": figure(result, "feature", "remaining_share")["after"],
                    "distance_before": distance["before"],
                    "distance_after": distance["after"],
                    "distance_ratio": distance["after"] / distance["before"],
                    "l1": figure(result, "locality", "l1")["after"],
                    "seconds": sum(result["seconds"].values()),
                }
                print(json.dumps(run), flush=True)
                runs.append(run)
            rows.append((job, rule, runs))
    print("\n| job | rule | edited | before | after | remaining (worst) | distance ratio (worst) | L1 elsewhere |")
    print("|---|---|---|---|---|---|---|---|")
    for job, rule, runs in rows:
        mean = lambda key: statistics.fmean(run[key] for run in runs)  # noqa: E731
        worst = lambda key: max(run[key] for run in runs)  # noqa: E731
        print(
            f"| {job} | {rule} | {mean('edited_share'):.1%} | {mean('before'):.2%} | {mean('after'):.3%} "
            f"| {mean('remaining_share'):.3f} ({worst('remaining_share'):.3f}) "
            f"| {mean('distance_ratio'):.3f} ({worst('distance_ratio'):.3f}) | {mean('l1'):.4f} |"
        )


if __name__ == "__main__":
    main()
