"""Stroke thickness and slant of one image, with scikit-image, from Morpho-MNIST's definitions.

The yardstick for the scorers and for the judges of strokes. Slow (20 ms an image), written from the paper's appendix
and the behaviour of its published `measure_image(img, threshold=0.5, scale=4)`, and sharing no code with the scorers.
Reference: Castro et al., "Morpho-MNIST", JMLR 20 (2019).
"""

import numpy as np
from skimage.measure import moments_central
from skimage.morphology import medial_axis
from skimage.transform import pyramid_expand

SCALE = 4


def enlarge(image: np.ndarray) -> np.ndarray:
    """A u8 image [28, 28], upscaled to u8 [112, 112]."""
    return (255.0 * pyramid_expand(image, upscale=SCALE, order=3)).astype(np.uint8)


def thickness(image: np.ndarray) -> float:
    """Twice the mean distance to the background along the medial axis, in original pixels."""
    large = enlarge(image).astype(float)
    strokes = large >= (large.min() + large.max()) / 2
    # The medial axis breaks ties at random: fix them.
    axis, distance = medial_axis(strokes, return_distance=True, rng=0)
    return 2.0 * distance[axis].mean() / SCALE


def slant(image: np.ndarray) -> float:
    """arctan(-mu11 / mu02) of the upscaled grey levels, in radians."""
    mu = moments_central(enlarge(image).astype(float), order=2)  # [rows, columns]
    return float(np.arctan(-mu[1, 1] / mu[2, 0]))
