"""The numbers that the tests of lethe-models are checked against, computed another way.

`python crates/models/tests/reference/make.py` writes `*.safetensors` and `normalised.pt` beside this file. It uses numpy in f64, scipy,
scikit-image and PyTorch; nothing of Lethe. Where a library has the same measure, this script checks itself against it.
"""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.optimize
import torch
from safetensors.numpy import save_file
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity

HERE = Path(__file__).resolve().parent
WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def window(pixels: int) -> np.ndarray:
    offsets = np.arange(pixels) - pixels // 2
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    return np.outer(line, line) / np.outer(line, line).sum()


def maps(x: np.ndarray, y: np.ndarray, pixels: int) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure of one channel."""

    def average(image: np.ndarray) -> np.ndarray:
        return convolve2d(image, window(pixels), mode="valid")

    mx, my = average(x), average(y)
    vx, vy, cov = average(x * x) - mx**2, average(y * y) - my**2, average(x * y) - mx * my
    structure = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
    luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
    return float((luminance * structure).mean()), float(structure.mean())


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    side = min(x.shape[1:])
    pixels = min(11, side if side % 2 else side - 1)
    return float(np.mean([maps(a, b, pixels)[0] for a, b in zip(x, y)]))


def ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    side, scales = min(x.shape[1:]), 1
    while scales < 5 and side // 2**scales >= 11:
        scales += 1
    if scales == 1:
        return ssim(x, y)
    weights = WEIGHTS[:scales] / WEIGHTS[:scales].sum()
    channels = []
    for a, b in zip(x, y):
        value = 1.0
        for scale, weight in enumerate(weights):
            if scale:
                a, b = (halve(image) for image in (a, b))
            whole, structure = maps(a, b, 11)
            value *= max(whole if scale == scales - 1 else structure, 1e-4) ** weight
        channels.append(value)
    return float(np.mean(channels))


def halve(image: np.ndarray) -> np.ndarray:
    height, width = (n // 2 for n in image.shape)
    return image[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))


def slope(x: np.ndarray, y: np.ndarray, direction: np.ndarray) -> float:
    """Central difference of MS-SSIM at x along a direction, in f64."""
    h = 1e-5
    return (ms_ssim(x + h * direction, y) - ms_ssim(x - h * direction, y)) / (2 * h)


def blobs(source: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth images with structure, as u8."""
    noise = source.random(shape)
    for axis in (-1, -2):
        for _ in range(3):
            noise = (np.roll(noise, 1, axis) + noise + np.roll(noise, -1, axis)) / 3
    low, high = noise.min(), noise.max()
    return np.round(255 * (noise - low) / (high - low)).astype(np.uint8)


def similarity() -> dict[str, np.ndarray]:
    source, file = np.random.default_rng(1), {}
    for name, shape in {
        "digits": (4, 1, 28, 28), "colour": (2, 3, 64, 48), "odd": (2, 1, 47, 55), "large": (1, 1, 176, 180),
        "small": (2, 1, 8, 9), "edge": (2, 1, 11, 13),
    }.items():
        x = blobs(source, shape)
        y = np.clip(x.astype(int) + source.integers(-40, 40, shape), 0, 255).astype(np.uint8)
        y[0] = 255 - x[0]  # as unlike as can be: negative structure
        direction = source.choice([-1.0, 1.0], shape)
        a, b = x / 255, y / 255
        file |= {f"{name}.x": x, f"{name}.y": y, f"{name}.direction": direction.astype(np.int8)}
        file[f"{name}.ssim"] = np.array([ssim(*pair) for pair in zip(a, b)])
        file[f"{name}.ms_ssim"] = np.array([ms_ssim(*pair) for pair in zip(a, b)])
        file[f"{name}.slope"] = np.array([slope(*triple) for triple in zip(a, b, direction)])
        if min(shape[2:]) >= 11:
            for i, (one, other) in enumerate(zip(a, b)):
                library = structural_similarity(
                    one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0,
                    channel_axis=0)
                assert math.isclose(library, file[f"{name}.ssim"][i], abs_tol=1e-9), name
    return file


def loss() -> dict[str, np.ndarray]:
    """alpha (L1 + 1 - MS-SSIM) where edited, L1 elsewhere; summed over the batch."""
    source = np.random.default_rng(2)
    x, y = blobs(source, (5, 1, 28, 28)), blobs(source, (5, 1, 28, 28))
    edited = np.array([True, False, False, True, False])
    a, b = x / 255, y / 255
    file = {"x": x, "y": y, "edited": edited}
    for name, reduce in {"mean": np.mean, "sum": np.sum}.items():
        total = 0.0
        for one, other, flag in zip(a, b, edited):
            l1 = reduce(np.abs(one - other))
            total += 3.0 * (l1 + 1 - ms_ssim(one, other)) if flag else l1
        file[name] = np.array(total)
    return file


def adam() -> dict[str, np.ndarray]:
    torch.manual_seed(3)
    shapes = {"a": (37, 5), "b": (3,)}
    weights = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    file = {f"start.{name}": w.detach().clone().numpy() for name, w in weights.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=2e-3, foreach=False, fused=False)
    for step in range(7):
        for name, weight in weights.items():
            weight.grad = torch.randn(weight.shape) * 10.0 ** (step - 4)
            file[f"gradient.{step}.{name}"] = weight.grad.numpy().copy()
        optimiser.step()
        file |= {f"after.{step}.{name}": w.detach().clone().numpy() for name, w in weights.items()}
    return file


def frechet() -> dict[str, np.ndarray]:
    """Heusel et al. 2017 with scipy's general matrix square root, also of singular covariances."""
    source, file = np.random.default_rng(4), {}
    for name, (count, dimension) in {"full": (80, 12), "singular": (9, 12), "line": (5, 1)}.items():
        mixing = source.normal(size=(dimension, dimension))
        one = (source.normal(size=(count, dimension)) @ mixing + 0.5).astype(np.float32)
        other = (source.normal(size=(count + 3, dimension)) * 1.5).astype(np.float32)
        means = [v.astype(np.float64).mean(axis=0) for v in (one, other)]
        covariances = [np.atleast_2d(np.cov(v.astype(np.float64), rowvar=False)) for v in (one, other)]
        if name == "singular":  # sqrtm needs a regular product: the limit of a vanishing ridge
            ridge = [c + 1e-13 * np.eye(dimension) for c in covariances]
            root = scipy.linalg.sqrtm(ridge[0] @ ridge[1])
        else:
            root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
        distance = ((means[0] - means[1]) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * np.trace(root.real)
        file |= {f"{name}.one": one, f"{name}.other": other, f"{name}.distance": np.array(float(distance))}
    return file


def logistic() -> dict[str, np.ndarray]:
    """L2-regularised logistic regression with a free intercept, by Newton's method to machine precision."""
    source = np.random.default_rng(5)
    rows = source.normal(size=(300, 7)).astype(np.float32)
    truth = source.normal(size=7)
    positive = rows @ truth + source.normal(size=300) > 2.0
    x = np.hstack([rows.astype(np.float64), np.ones((300, 1))])
    keep = np.diag([1.0] * 7 + [0.0])

    def newton(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        w = np.zeros(8)
        for _ in range(60):
            p = 1 / (1 + np.exp(-x @ w))
            gradient = x.T @ (p - labels) + keep @ w
            w -= np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + keep, gradient)
        assert np.abs(gradient).max() < 1e-10
        return w[:7]

    outside = np.arange(300) % 5 != 2
    return {
        "rows": rows, "positive": positive, "all": newton(x, positive),
        "without_2": newton(x[outside], positive[outside]),
        "difference": rows[positive].astype(np.float64).mean(axis=0) - rows[~positive].astype(np.float64).mean(axis=0),
    }


def chacha8(key: bytes, block: int, stream: int) -> list[int]:
    """One block of Bernstein's ChaCha with 8 rounds, 64-bit block counter and 64-bit stream number."""
    words = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    words += [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)]
    words += [block & 0xFFFFFFFF, block >> 32, stream & 0xFFFFFFFF, stream >> 32]
    state = list(words)

    def turn(value: int, bits: int) -> int:
        return (value << bits | value >> 32 - bits) & 0xFFFFFFFF

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            state[z] = turn(state[z] ^ state[x], bits)

    for _ in range(4):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & 0xFFFFFFFF for a, b in zip(state, words)]


def latents() -> dict[str, np.ndarray]:
    """Uniform latents over [-2, 3) of three addresses, 20 entries each."""
    file = {}
    for seed, stream, index in ((0, 0, 0), (12345678901234567890, 2, 7), (1, 4, 2**40 + 3)):
        key = seed.to_bytes(8, "little") + stream.to_bytes(8, "little") + bytes(16)
        words = [word for block in range(3) for word in chacha8(key, block, index)]
        units = [(words[i] | words[i + 1] << 32) >> 11 for i in range(0, 40, 2)]
        values = [-2.0 + 5.0 * (unit * 2.0**-53) for unit in units]
        file[f"{seed}.{stream}.{index}"] = np.array(values, dtype=np.float64).astype(np.float32)
    return file


class Normalised(torch.nn.Module):
    """A generator with batch normalisation, dropout and a counter: what changes when a module trains."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 32)
        self.norm = torch.nn.BatchNorm2d(2)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.dropout(self.norm(self.linear(z).reshape(-1, 2, 4, 4))).sum(dim=1, keepdim=True))


def without_traces(archive: io.BytesIO) -> bytes:
    """The same archive without debug files, which name paths of this machine, and without times and ids."""
    packed = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith((".debug_pkl", "serialization_id")):
                target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))
    return packed.getvalue()


def normalised() -> dict[str, np.ndarray]:
    """Also writes the module. Expected: images in eval mode, and one pass in which only the normalisation trains."""
    torch.manual_seed(6)
    module = Normalised().eval()
    module.norm.running_mean += 0.3
    module.norm.running_var *= 2.0
    z = torch.randn(8, 3)
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(module), script)
    (HERE / "normalised.pt").write_bytes(without_traces(script))
    with torch.no_grad():
        file = {"z": z, "eval": module(z)}
        module.norm.train()
        file |= {"train": module(z), "mean": module.norm.running_mean, "variance": module.norm.running_var}
    return {name: tensor.numpy() for name, tensor in file.items()}


def main() -> None:
    for make in (similarity, loss, adam, frechet, logistic, latents, normalised):
        content = {name: np.ascontiguousarray(value) for name, value in make().items()}
        place = HERE / f"{make.__name__}.safetensors"
        save_file(content, place)
        place.chmod(0o644)


if __name__ == "__main__":
    main()
