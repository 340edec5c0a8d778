"""The committed MNIST generators give digits, all ten of them, and different ones.

The bounds are loose: the model card has the figures.
"""

import pytest
import frechet
import quality
import torch
from safetensors.torch import load_file

import artifact

SAMPLES = 2000
GENERATORS = ["dcgan", "vae"]

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=GENERATORS)
def images(request: pytest.FixtureRequest) -> torch.Tensor:
    return quality.sample(request.param, SAMPLES)


def test_images_have_the_declared_shape_and_range(images: torch.Tensor):
    assert images.shape == (SAMPLES, 1, 28, 28)
    assert 0.0 <= images.min() < 0.05
    assert 0.9 < images.max() <= 1.0


def test_all_digits_appear(images: torch.Tensor):
    shares = torch.bincount(frechet.run("classifier", images).argmax(1), minlength=10) / SAMPLES
    assert shares.min() >= 0.04
    assert shares.max() <= 0.20


def test_most_images_are_digits(images: torch.Tensor):
    confidence = frechet.run("classifier", images).softmax(1).amax(1)
    assert (confidence > 0.9).float().mean() >= 0.6


@pytest.mark.parametrize(("name", "farthest"), [("dcgan", 12), ("vae", 95)])
def test_images_are_as_near_to_the_test_set_as_the_card_says(name: str, farthest: float):
    test = load_file(artifact.MODELS.parent / "data" / "test.safetensors")["images"].float() / 255
    features = [frechet.run("features", images) for images in (quality.sample(name, quality.SAMPLES), test)]
    assert frechet.distance(*features) <= farthest


def test_images_differ_as_much_as_real_ones(images: torch.Tensor):
    """Mean distance of two images, in pixels: a collapsed generator repeats itself."""
    real = load_file(artifact.MODELS.parent / "data" / "test.safetensors")["images"][:SAMPLES]
    spread = [torch.pdist(x.flatten(1)[:500]).mean().item() for x in (images, real.float() / 255)]
    assert 0.75 <= spread[0] / spread[1] <= 1.15


@pytest.mark.parametrize("name", GENERATORS)
def test_samples_are_reproducible(name: str):
    torch.testing.assert_close(quality.sample(name, 4), quality.sample(name, 600)[:4])
