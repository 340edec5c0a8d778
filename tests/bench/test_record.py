"""docs/results.md shows what is on record."""

import pytest

import record


def test_the_page_is_made_of_the_record():
    page = record.PAGE.read_text()
    assert record.filled(page, record.tables(record.runs())) == page, "make table, or tests/bench/record.py, writes it"


def test_a_figure_beyond_what_is_asked_is_bold_and_the_last_run_counts(tmp_path):
    run = {"job": "thick-vae", "rule": "defaults", "seed": 1, "edited_share": 0.1, "strength": 1, "missed": 0, "edit": 0.0004}
    run |= {"fit": 0.02, "new": 0, "class_changed": 0.0101, "ideal_over_rejection": 1, "ideal_class_changed": 0, "seconds": 90.4}
    first = run | {"remaining_share": 0.5, "over_rejection": 3}
    last = run | {"remaining_share": 0.0204, "over_rejection": 1.051}
    path = tmp_path / "record.jsonl"
    path.write_text("".join(f"{record.json.dumps(one)}\n" for one in (first, last)))
    (row,) = record.table(record.runs(path), "job", "seed").splitlines()[2:]
    assert row == (
        "| thick-vae | 1 | 10.0 % | 1.00 | 0.020 | 0 | 0 | 0.020 | 0 | **1.051** | **1.01 %** | 0 | 1.00 | 0.00 % | 90 |"
    )
    assert record.bars("digit-8-vae")["over_rejection"] == 1.10


def test_a_page_without_a_place_for_a_table_is_told():
    with pytest.raises(SystemExit, match="no line <!-- table digits -->"):
        record.filled("", {"digits": ""})
