"""Padding "same" by its definition: ceil(size / stride) windows, of what hangs out the larger half at the end."""

import math

import pytest
import torch
from tensorflow_layers import Same, conv, max_pool


def windows(row: list[float], kernel: int, stride: int) -> list[list[float | None]]:
    """The windows over one row, None where they hang out of it."""
    count = math.ceil(len(row) / stride)
    hanging = max((count - 1) * stride + kernel - len(row), 0)
    first = -(hanging // 2)
    starts = [first + i * stride for i in range(count)]
    return [[row[j] if 0 <= j < len(row) else None for j in range(at, at + kernel)] for at in starts]


SHAPES = [(6, 3, 2), (5, 3, 2), (5, 3, 1), (8, 3, 2), (7, 1, 2), (4, 2, 2)]


@pytest.mark.parametrize(("size", "kernel", "stride"), SHAPES)
def test_maxima_and_sums_are_those_of_the_windows(size: int, kernel: int, stride: int):
    row = torch.randn(size, generator=torch.Generator().manual_seed(size)) - 3  # below the zero of a padded sum
    images = row.reshape(1, 1, 1, size).expand(1, 1, size, size)
    wanted = windows(row.tolist(), kernel, stride)
    maxima = torch.tensor([max(value for value in window if value is not None) for window in wanted])
    torch.testing.assert_close(max_pool(kernel, stride)(images)[0, 0, 0], maxima)

    layer = conv(1, 1, kernel, stride, bias=False)
    weights = torch.arange(1.0, kernel + 1)
    centre = Same(kernel, stride).lacking(size) // 2  # the kernel's row that lies on the first row of the image
    layer[1].weight.data.zero_()[0, 0, centre] = weights
    sums = torch.tensor([sum(w * (value or 0.0) for w, value in zip(weights.tolist(), window)) for window in wanted])
    torch.testing.assert_close(layer(images)[0, 0, 0], sums)


def test_an_odd_rest_is_padded_below_and_to_the_right():
    padded = Same(3, 2)(torch.ones(1, 1, 4, 6))
    assert padded.shape == (1, 1, 5, 7)
    assert padded[0, 0, -1].sum() == 0 and padded[0, 0, :, -1].sum() == 0 and padded[0, 0, 0, 0] == 1
