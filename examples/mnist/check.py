"""The end of `make demo`: fails when more of the feature is left than a demonstration may show. Python's own library only."""

import json
import sys
from pathlib import Path


def main(path: str, at_most: str) -> int:
    figures = json.loads(Path(path).read_text())["figures"]
    (remaining,) = [figure for figure in figures if (figure["group"], figure["name"]) == ("feature", "remaining_share")]
    share = remaining["after"]
    if share is None or share > float(at_most):
        left = "nothing to remove was seen" if share is None else f"{share:.1%} of the feature is left"
        print(f"error: {left}, expected at most {float(at_most):.0%}: {path}", file=sys.stderr)
        return 1
    print(f"{share:.1%} of the feature is left, by the job's judge (at most {float(at_most):.0%} is asked of a demonstration)")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
