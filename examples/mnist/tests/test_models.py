"""The committed MNIST models do what their sidecars and the model card say.

Runs from the repository alone: `pytest examples/mnist/tests`.
"""

import hashlib
import json
from pathlib import Path

import agreement
import definitions
import numpy as np
import pytest
import quality
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
LARGEST_FILE = 4_000_000
MEASURED = 1000  # images that the slow definitions are evaluated on, of each kind
SCORERS = ["thickness", "slant"]
MISSED = 0.12  # at most, of the tenth that a job removes

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def test_set() -> dict[str, torch.Tensor]:
    return load_file(ROOT / "data" / "test.safetensors")


@pytest.fixture(scope="module")
def strided(test_set: dict[str, torch.Tensor]) -> torch.Tensor:
    """MEASURED images, u8, from the whole test set: its two halves have different writers."""
    images = test_set["images"]
    return images[:: len(images) // MEASURED][:MEASURED]


def run(name: str, images: torch.Tensor) -> torch.Tensor:
    """The outputs of TorchScript model `name` on u8 images."""
    model = torch.jit.load(MODELS / f"{name}.pt")
    with torch.no_grad():
        return torch.cat([model(part.float() / 255) for part in images.split(500)])


def sidecars() -> list[Path]:
    return sorted(MODELS.glob("*.json"))


def test_every_model_has_a_sidecar():
    models = {path.name for path in MODELS.iterdir() if path.suffix in {".pt", ".safetensors"}}
    assert models == {path.stem for path in sidecars()}
    assert models >= {"classifier.pt", "features.pt", "thickness.pt", "slant.pt"}
    assert models >= {"judge.pt", "thickness_judge.pt", "slant_judge.pt"}


@pytest.mark.parametrize("path", sidecars(), ids=lambda path: path.stem)
def test_sidecar_names_the_file_beside_it(path: Path):
    sidecar = json.loads(path.read_text())
    model = path.with_suffix("").read_bytes()
    assert sidecar["sha256"] == hashlib.sha256(model).hexdigest()
    assert sidecar["schema_version"] == 1
    assert len(model) <= LARGEST_FILE


def test_the_test_set_is_whole(test_set: dict[str, torch.Tensor]):
    assert test_set["images"].shape == (10_000, 1, 28, 28)
    # Label counts as published with the database.
    counts = torch.bincount(test_set["labels"].long()).tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(("name", "least"), [("classifier", 0.985), ("judge", 0.994)])
def test_accuracy(test_set: dict[str, torch.Tensor], name: str, least: float):
    logits = run(name, test_set["images"])
    assert logits.shape == (10_000, 10)
    accuracy = (logits.argmax(1) == test_set["labels"]).float().mean().item()
    assert accuracy >= least


def test_the_judge_errs_elsewhere_than_the_classifier(test_set: dict[str, torch.Tensor]):
    """Of what the classifier gets wrong, the judge names most otherwise: one's mistakes are not the other's."""
    ours, judged = (run(name, test_set["images"]).argmax(1) for name in ("classifier", "judge"))
    wrong = ours != test_set["labels"]
    assert (judged[wrong] == ours[wrong]).float().mean() <= 0.5


def test_features_are_the_classifiers_own(strided: torch.Tensor):
    features = run("features", strided)
    dimension = json.loads((MODELS / "features.pt.json").read_text())["dimension"]
    assert features.shape == (MEASURED, dimension)
    head = torch.jit.load(MODELS / "classifier.pt").head
    torch.testing.assert_close(head(features), run("classifier", strided))


@pytest.fixture(scope="module", params=["test", "vae", "dcgan"])
def images(request: pytest.FixtureRequest, strided: torch.Tensor) -> torch.Tensor:
    """MEASURED images, u8, of the test set or of a generator."""
    if request.param == "test":
        return strided
    return (quality.sample(request.param, MEASURED) * 255).round().byte()


@pytest.fixture(scope="module")
def wanted(images: torch.Tensor) -> dict[str, np.ndarray]:
    """What scikit-image's definitions say of `images`."""
    pixels = images[:, 0].numpy()
    return {name: np.array([getattr(definitions, name)(image) for image in pixels]) for name in SCORERS}


@pytest.mark.parametrize("kind", ["", "_judge"], ids=["scorer", "judge"])
@pytest.mark.parametrize(("feature", "largest_mean_error"), [("thickness", 0.1), ("slant", 0.01)])
def test_score_follows_its_definition(
    images: torch.Tensor, wanted: dict[str, np.ndarray], feature: str, largest_mean_error: float, kind: str
):
    scores = run(feature + kind, images).numpy()
    assert scores.shape == (MEASURED,)
    assert spearmanr(scores, wanted[feature]).statistic >= 0.98
    # The judge of thickness is a small network: a hundredth of a pixel worse on blurred strokes.
    learnt = feature + kind == "thickness_judge"
    assert np.abs(scores - wanted[feature]).mean() <= largest_mean_error * (1.3 if learnt else 1.0)
    assert agreement.missed(scores, wanted[feature]) <= MISSED * (1.4 if learnt else 1.0)


@pytest.mark.parametrize("name", [*SCORERS, "slant_judge"])
@pytest.mark.parametrize("level", [0, 255])
def test_even_images_score_zero(name: str, level: int):
    scores = run(name, torch.full((3, 1, 28, 28), level, dtype=torch.uint8))
    torch.testing.assert_close(scores, torch.zeros(3), atol=1e-3, rtol=0)


def test_blank_images_are_not_thick_to_the_judge():
    assert run("thickness_judge", torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).item() == 0


@pytest.mark.parametrize(
    ("name", "width"), [*(("thickness", width) for width in (2, 3, 4, 6)), ("thickness_judge", 2), ("thickness_judge", 3)]
)
def test_a_bar_is_as_thick_as_it_is_wide(name: str, width: int):
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[..., 4:24, 14 - width // 2 : 14 - width // 2 + width] = 255
    assert run(name, image).item() == pytest.approx(width, abs=0.35)


@pytest.mark.parametrize("name", [*SCORERS, "thickness_judge", "slant_judge"])
def test_a_score_depends_on_its_own_image_alone(strided: torch.Tensor, name: str):
    together = run(name, strided[:70])
    alone = torch.cat([run(name, image) for image in strided[:70].split(1)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def generators() -> list[Path]:
    return sorted(MODELS.glob("*.safetensors"))


@pytest.mark.parametrize("path", generators(), ids=lambda path: path.stem)
def test_generator_weights_are_finite_f32(path: Path):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert tensors
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert all(tensor.isfinite().all() for tensor in tensors.values())
