"""The lines of a job that each export prints or adds to a file."""

import subprocess

import yaml

from export.tests import user_models
from export.tests.conftest import CHECKOUT, IMAGES, VAE, user


def test_three_exports_make_a_job(tmp_path, saved, export):
    job = tmp_path / "jobs" / "No Glasses.yaml"
    job.parent.mkdir()
    weights = saved(user_models.Logits(), "g.pth")[1]
    generator = [
        *VAE, "--weights", weights, "--module", user("Logits"), "--activation", "sigmoid", "--latent", 4,
    ]  # fmt: skip
    code, out, _ = export(*generator, "--out", tmp_path / "g.pt", "--job", job)
    assert code == 0 and f"added to {job}:\n\n    generator: {{uri: ../g.pt}}\n" in out
    weights = saved(user_models.TwoHeads(), "c.pth")[1]
    heads = [*IMAGES, "--weights", weights, "--module", user("TwoHeads")]
    classifier = ["--kind", "classifier", *heads, "--select", 1, "--out", tmp_path / "c.pt"]
    glasses = ["--feature", "glasses", "--job", job]
    code, _, errors = export(*classifier, *glasses)
    assert (
        code == 1 and "the classifier has 3 classes: say which is the feature with --class, 0 to 2" in errors
    )
    assert export(*classifier, *glasses, "--class", 2)[0] == 0
    features = ["--kind", "features", *heads, "--select", 0, "--out", job.parent / "f.pt", "--job", job]
    assert export(*features)[0] == 0
    written = job.read_text()
    assert yaml.safe_load(written) == {
        "name": "no-glasses",
        "generator": {"uri": "../g.pt"},
        "feature": {"name": "glasses", "classifier": {"uri": "../c.pt", "output": "logits", "class": 2}},
        "evaluate": {"features": "f.pt"},
    }
    code, _, errors = export(*generator, "--out", tmp_path / "other.pt", "--job", job)
    assert code == 1 and "has `generator:` already, in line 2" in errors
    assert job.read_text() == written and not (tmp_path / "other.pt").exists()


def test_a_judge_and_a_space_stand_in_one_group_in_either_order(tmp_path, saved, export):
    weights = saved(user_models.TwoHeads(), "c.pth")[1]
    heads = [*IMAGES, "--weights", weights, "--module", user("TwoHeads")]
    judge = ["--kind", "classifier", *heads, "--select", 1, "--class", 2, "--judge", "--out", tmp_path / "j.pt"]
    space = ["--kind", "features", *heads, "--select", 0, "--out", tmp_path / "f.pt"]
    both = {"judge": {"classifier": {"uri": "j.pt", "output": "logits", "class": 2}}, "features": "f.pt"}
    for order in ([judge, space], [space, judge]):
        job = tmp_path / f"job-{order[0] is judge}.yaml"
        for model in order:
            code, _, errors = export(*model, "--force", "--job", job)
            assert code == 0, errors
        assert yaml.safe_load(job.read_text()) == {"name": job.stem.lower(), "evaluate": both}
        code, _, errors = export(*judge, "--force", "--job", job)
        assert code == 1 and "has `evaluate.judge:` already, in line " in errors
    job = tmp_path / "deep.yaml"
    job.write_text("evaluate:   # by whom\n  # how many\n    samples: 500\n\nsample: {seed: 3}\n")
    assert export(*judge, "--force", "--job", job)[0] == 0
    found = yaml.safe_load(job.read_text())
    assert found == {"evaluate": {"judge": both["judge"], "samples": 500}, "sample": {"seed": 3}}
    job.write_text("evaluate:\n  samples: 5\n# who judges\n  judge: {}\n")
    assert export(*judge, "--force", "--job", job)[0] == 1
    job.write_text("evaluate: {samples: 500}\n")
    code, _, errors = export(*judge, "--force", "--job", job)
    assert code == 1 and "has `evaluate:` already, in line 1" in errors
    code, _, errors = export(*judge, "--force", "--feature", "glasses")
    assert code == 2 and "a judge needs none" in errors


def test_lethe_finds_beside_the_generator_what_the_job_does_not_say(tmp_path, saved, export):
    job = tmp_path / "job.yaml"
    weights = saved(user_models.Beyond())[1]
    generator = [*VAE, "--weights", weights, "--module", user("Beyond"), "--latent", 4, "--clamp", "--job", job]
    assert export(*generator, "--prior", "uniform:-1,1", "--out", tmp_path / "g.pt")[0] == 0
    scorer = ["--kind", "scorer", "--channels", 1, "--size", "5,6", "--module", user("Brightness"), "--job", job]
    assert export(*scorer, "--feature", "dark", "--positive", "below:0.25", "--out", tmp_path / "s.pt")[0] == 0
    validate = [CHECKOUT / "target" / "release" / "lethe", "job", "validate", job]
    done = subprocess.run(validate, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "g.pt.json").unlink()
    done = subprocess.run(validate, capture_output=True, text=True, check=False)
    missing = ["generator.format: missing", "generator.latent: missing", "generator.output: missing"]
    assert done.returncode == 2 and all(key in done.stderr for key in missing), done.stderr


def test_a_job_that_was_begun_by_hand(tmp_path, export):
    job = tmp_path / "mine.yml"
    job.write_text("name: mine  # with a comment, and no end of line\nsample: {seed: 3}")
    scorer = ["--kind", "scorer", *IMAGES, "--module", user("Brightness"), "--out", tmp_path / "s.pt"]
    assert export(*scorer, "--job", job, "--feature", "dark", "--positive", "below:0.25")[0] == 0
    assert job.read_text().startswith("name: mine  # with a comment, and no end of line\nsample: {seed: 3}\n")
    assert yaml.safe_load(job.read_text())["feature"] == {
        "name": "dark",
        "scorer": {"uri": "s.pt", "positive": {"below": 0.25}},
    }
    code, _, errors = export(
        *scorer[:-1],
        tmp_path / "t.pt",
        "--job",
        tmp_path / "j.json",
        "--feature",
        "x",
        "--positive",
        "top:0.1",
    )
    assert code == 1 and "a YAML file only" in errors


def test_without_a_job_the_lines_are_printed(tmp_path, saved, export):
    common = [*IMAGES, "--out", tmp_path / "l.pt"]
    for name, numbers in (("Classifier", "logits"), ("Softmax", "probability")):
        weights = saved(getattr(user_models, name)())[1]
        code, out, errors = export(
            "--kind", "classifier", *common, "--weights", weights, "--module", user(name)
        )
        assert code == 0, errors
        assert (
            f"feature:\n      name: NAME\n      classifier: {{uri: l.pt, output: {numbers}, class: CLASS}}\n"
            in out
        )
    out = export("--kind", "scorer", *common, "--module", user("Brightness"))[1]
    assert "scorer: {uri: l.pt, positive: {above: SCORE}}" in out
