"""The runs of `make table` on record (docs/results.jsonl) and the tables of docs/results.md that are made from them.

Of several runs of the same job, rule and seed the last counts. Not here: running a job (`table`).
"""

import json
import pathlib
import re

from job import ROOT

RECORD = ROOT / "docs" / "results.jsonl"
PAGE = ROOT / "docs" / "results.md"
# Those that are reported; with others settings were chosen.
SEEDS = (1, 2, 3)
HEAD = (
    "edited | strength | remaining share | missed | edit | fit | new | distance over rejection | classes changed "
    "| ideal: remaining | distance | changed | seconds |"
)


def bars(job: str) -> dict[str, float]:
    """The most that is asked of a job's figures."""
    over_rejection = 1.10 if job.startswith("digit") else 1.05
    return {"remaining_share": 0.05, "over_rejection": over_rejection, "class_changed": 0.01}


def runs(path: pathlib.Path = RECORD) -> list[dict]:
    """Every run that counts, in the order of first appearance."""
    last = {}
    for line in path.read_text().splitlines():
        run = json.loads(line)
        last[run["job"], run["rule"], run["seed"]] = run
    return list(last.values())


def append(run: dict) -> None:
    with RECORD.open("a") as file:
        file.write(json.dumps(run) + "\n")


def _part(value: float) -> str:
    return "0" if value < 0.0005 else f"{value:.3f}"


def _row(run: dict, *names: str) -> str:
    most = bars(run["job"])

    def judged(name: str, text: str) -> str:
        return text if run[name] <= most[name] else f"**{text}**"

    parts = [_part(run[name]) for name in ("missed", "edit", "fit", "new")]
    cells = [
        *(str(run[name]) for name in names),
        f"{run['edited_share'] * 100:.1f} %",
        f"{run['strength']:.2f}",
        judged("remaining_share", f"{run['remaining_share']:.3f}"),
        *parts,
        judged("over_rejection", f"{run['over_rejection']:.3f}"),
        judged("class_changed", f"{run['class_changed'] * 100:.2f} %"),
        _part(run["missed"] + run["edit"]),
        f"{run['ideal_over_rejection']:.2f}",
        f"{run['ideal_class_changed'] * 100:.2f} %",
        f"{run['seconds']:.0f}" if run.get("seconds") else "",
    ]
    return "| " + " | ".join(cells) + " |"


def table(shown: list[dict], *names: str) -> str:
    """A table in Markdown with a row per run; `names` are what tells the rows from each other. Bold misses what is asked."""
    head = "| " + " | ".join((*names, HEAD))
    rule = "|---" * (head.count("|") - 1) + "|"
    return "\n".join([head, rule, *(_row(run, *names) for run in shown)])


def tables(shown: list[dict]) -> dict[str, str]:
    """Each table of the page by its name."""
    defaults = [run for run in shown if run["rule"] == "defaults"]
    reported = [run for run in defaults if run["seed"] in SEEDS]
    is_digits = re.compile(r"digit-\d-.*").fullmatch
    digits = [run for run in reported if is_digits(run["job"])]
    digits.sort(key=lambda run: (run["job"].split("-")[2], run["job"]))
    examples = [run for run in reported if not is_digits(run["job"])]
    examples.sort(key=lambda run: (run["job"].split("-")[0] == "digit", run["job"].split("-")[1] == "dcgan", run["job"], run["seed"]))
    others = [run for run in shown if run["rule"] in ("quick", "paper, literal", "paper, tuned")]
    others.sort(key=lambda run: (run["rule"], run["job"], run["seed"]))
    found = {
        "examples": table(examples, "job", "seed"),
        "digits": table(digits, "job", "seed"),
        "rules": table(others, "rule", "job", "seed"),
    }
    without = [run for run in shown if run["rule"].startswith("without ")]
    whole = [run for run in defaults if (run["job"], run["seed"]) in {(part["job"], part["seed"]) for part in without}]
    return found | ({"parts": table(whole + without, "rule", "job", "seed")} if without else {})


def filled(page: str, found: dict[str, str]) -> str:
    """The page with each table between its marks, `<!-- table NAME -->` and `<!-- end -->`."""
    for name, text in found.items():
        mark = f"<!-- table {name} -->"
        if mark not in page:
            raise SystemExit(f"{PAGE.name} has no line {mark}: write one, and <!-- end --> below it, where the table is to stand")
        page = re.sub(rf"{mark}\n.*?<!-- end -->", lambda _, t=text, m=mark: f"{m}\n{t}\n<!-- end -->", page, flags=re.DOTALL)
    return page


def write_page() -> None:
    PAGE.write_text(filled(PAGE.read_text(), tables(runs())))


if __name__ == "__main__":
    write_page()
