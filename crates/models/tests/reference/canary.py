"""What the canary must give: the formula of crates/domain/src/canary.rs, in float64 and loops of plain Python.

`python3 canary.py` prints the numbers that stand there as EXPECTED.
"""

import math


def number(index: int, salt: int) -> float:
    """A multiple of 1/16 in -0.5 to 0.5."""
    return ((index * index * 5 + index * 3 + salt) % 17 - 8) / 16


def tensor(salt: int, *shape: int):
    """Nested lists, numbered in row-major order."""

    def fill(shape, start):
        if not shape:
            return number(start, salt)
        inner = math.prod(shape[1:])
        return [fill(shape[1:], start + place * inner) for place in range(shape[0])]

    return fill(shape, 0)


def conv(images, kernel, bias):
    """Stride 2, padding 1, kernel 3."""
    side = len(images[0][0])

    def at(image, channel, row, column):
        inside = 0 <= row < side and 0 <= column < side
        return image[channel][row][column] if inside else 0.0

    return [
        [
            [
                [
                    bias[out]
                    + sum(
                        kernel[out][channel][i][j] * at(image, channel, 2 * row + i - 1, 2 * column + j - 1)
                        for channel in range(len(image))
                        for i in range(3)
                        for j in range(3)
                    )
                    for column in range(side // 2)
                ]
                for row in range(side // 2)
            ]
            for out in range(len(kernel))
        ]
        for image in images
    ]


def main() -> None:
    features = conv(tensor(1, 2, 3, 8, 8), tensor(2, 4, 3, 3, 3), tensor(3, 4))
    flat = [[math.tanh(x) for channel in image for row in channel for x in row] for image in features]
    weight, bias = tensor(4, 8, 64), tensor(5, 8)
    hidden = [[math.tanh(bias[o] + sum(w * x / 4 for w, x in zip(weight[o], row))) for o in range(8)] for row in flat]
    mixing = tensor(6, 8, 8)
    output = [sum(row[k] * mixing[k][column] for k in range(8)) for row in hidden for column in range(8)]
    print(",\n".join(f"    {value:.7f}".rstrip("0") for value in output) + ",")


if __name__ == "__main__":
    main()
