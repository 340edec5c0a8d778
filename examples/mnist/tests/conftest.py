"""Lets the tests import the training scripts, which rebuild the generators from their sidecars."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train"))
