"""A small edition of smile.yaml runs: the labeller guides, another net judges, the distance has its own name."""

import json
import subprocess
from pathlib import Path

import pytest
from convert import HERE

LETHE = HERE.parents[1] / "target" / "release" / "lethe"
SMALL = "sample: {until: {total: 500}}\nunlearn: {steps: 4, global_batch: 24}\npool: {latents: 200, shard_size: 50, batch: 25}\n"
EVALUATE = "evaluate:\n  samples: 160\n  batch: 40\n"


@pytest.fixture(scope="module")
def result(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("smile")
    shipped = (HERE / "smile.yaml").read_text()
    small = shipped.replace(".models/", f"{models}/").replace("evaluate:\n", EVALUATE) + SMALL
    assert small.count(str(models)) == 4 and EVALUATE in small
    (folder / "smile.yaml").write_text(small)
    command = [LETHE, "run", "smile.yaml", "--out", "out", "--slots", "2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "out" / "result.json").read_text())


def test_another_net_judges(result: dict):
    assert result["judge"]["same_as_labeller"] is False
    assert not {"JUDGE_IS_LABELLER", "FEATURE_NOT_SEEN"} & {warning["code"] for warning in result["warnings"]}


def test_a_third_of_the_faces_smile_by_the_judge(result: dict):
    (share,) = [figure for figure in result["figures"] if (figure["group"], figure["name"]) == ("feature", "share")]
    assert 0.3 < share["before"] < 0.55


def test_the_distance_is_called_what_it_is(result: dict):
    (distance,) = [figure for figure in result["figures"] if figure["name"] == "own_distance"]
    assert "dlib-face" in distance["definition"]
    assert "FID" not in distance["definition"]
