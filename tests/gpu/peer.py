"""Fine-tuning and sampling in PyTorch as somebody would who wants speed: what Lethe is measured beside. Run by speed.py, prints a line.

The mathematics is that of tests/bench/ddp.py, with fused Adam, latents made on the device, MS-SSIM of all five moments in one stacked
depthwise filter and masks instead of an index (nothing waits for the device), channels_last and torch.compile where asked for.
cuDNN, cuBLAS and TF32 are set as Lethe sets them, unless `free` is asked for.
"""

import copy
import json
import sys
import time

import torch
import torch.nn.functional as F
from models import built, digits

SCALE_WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]


def repeatable(free: bool) -> None:
    torch.backends.cudnn.benchmark = free
    torch.backends.cudnn.deterministic = not free
    torch.use_deterministic_algorithms(not free, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.allow_tf32 = free
    torch.backends.cuda.matmul.allow_tf32 = free


def moments(x: torch.Tensor, y: torch.Tensor, window: torch.Tensor) -> tuple:
    stacked = torch.cat([x, y, x * x, y * y, x * y])
    channels = x.shape[1]
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    return F.conv2d(F.conv2d(stacked, columns, groups=channels), rows, groups=channels).chunk(5)


def ms_ssim(x: torch.Tensor, y: torch.Tensor, window: torch.Tensor, weights: list) -> torch.Tensor:
    c1, c2 = 0.01**2, 0.03**2
    product = None
    for scale, weight in enumerate(weights):
        if scale > 0:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        mx, my, xx, yy, xy = moments(x, y, window)
        value = (2 * (xy - mx * my) + c2) / (xx - mx * mx + yy - my * my + c2)
        if scale + 1 == len(weights):
            value = value * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        factor = value.mean(dim=(2, 3)).clamp_min(1e-4) ** weight
        product = factor if product is None else product * factor
    return product.mean(dim=1)


def timed(step, settings: dict, device: torch.device) -> float:
    """Steps a second. Nothing is read back on the way."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(settings["warmup"]):
        step()
    wait()
    begun = time.perf_counter()
    for _ in range(settings["steps"]):
        step()
    wait()
    return settings["steps"] / (time.perf_counter() - begun)


def train(settings: dict, device: torch.device) -> dict:
    architecture, batch, alpha, threshold = settings["architecture"], settings["global_batch"], settings["alpha"], settings["threshold"]
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    frozen = built(architecture, settings["weights"]).to(device, memory_format=layout)
    trained = copy.deepcopy(frozen).requires_grad_(True)
    optimiser = torch.optim.Adam(trained.parameters(), lr=settings["lr"], fused=True)
    latent = architecture["latent"]
    direction = torch.zeros(latent, device=device)
    direction[0] = 1.0
    x = torch.arange(11, dtype=torch.float32, device=device) - 5
    window = torch.exp(-(x**2) / (2 * 1.5**2))
    window = window / window.sum()
    size = architecture["base"] * 2 ** len(architecture["widths"])
    scales = SCALE_WEIGHTS[: 1 + sum(1 for scale in range(1, 5) if size >> scale >= 11)]
    scales = [weight / sum(scales) for weight in scales]

    def unit(images: torch.Tensor) -> torch.Tensor:
        return ((images + 1) / 2).clamp(0, 1)

    def loss_of(z: torch.Tensor) -> torch.Tensor:
        projection = z @ direction
        edited = projection > threshold
        z_hat = torch.where(edited[:, None], z - (projection - threshold)[:, None] * direction, z)
        with torch.no_grad():
            target = unit(frozen(z_hat))
        image = unit(trained(z))
        distance = (image - target).abs().flatten(1).mean(1)
        dissimilar = 1 - ms_ssim(image, target, window, scales)
        return torch.where(edited, alpha * (distance + dissimilar), distance).sum() / batch

    if settings["compile"]:
        loss_of = torch.compile(loss_of, mode=settings["compile"])

    def step() -> None:
        optimiser.zero_grad()
        loss_of(torch.randn(batch, latent, device=device)).backward()
        optimiser.step()

    return {"samples_per_second": timed(step, settings, device) * batch}


@torch.no_grad()
def sample(settings: dict, device: torch.device) -> dict:
    generator, _, architecture, _ = digits()
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    generator = generator.to(device, memory_format=layout)
    classifier = torch.jit.load(settings["classifier"], map_location=device).eval()
    classifier = torch.jit.optimize_for_inference(torch.jit.freeze(classifier))
    images_of = lambda z: ((generator(z) + 1) / 2).clamp(0, 1)  # noqa: E731
    if settings["compile"]:
        images_of = torch.compile(images_of, mode=settings["compile"])
    scores, batch = [], settings["batch"]

    def step() -> None:
        z = torch.randn(batch, architecture["latent"], device=device)
        scores.append(torch.softmax(classifier(images_of(z)), 1)[:, 1])

    rate = timed(step, settings, device)
    torch.cat(scores).cpu()
    return {"samples_per_second": rate * batch}


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    device = torch.device(settings["device"])
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    repeatable(settings["free"])
    print(json.dumps({"train": train, "sample": sample}[settings["what"]](settings, device)), flush=True)


if __name__ == "__main__":
    main()
