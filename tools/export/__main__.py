"""`python tools/export ...` from anywhere, or `python -m tools.export ...` from the checkout."""

import os
import sys
from pathlib import Path

if __package__ != "export":  # the package is called `export`, and lies in the folder above this file's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export.cli import main  # noqa: E402

if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # nobody reads on: the files are written all the same
        code = 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
