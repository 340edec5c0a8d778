"""The fine-tuning of Lethe as a PyTorch user would write it: DistributedDataParallel under torchrun, Gloo, Adam.

Run by train.py: `torchrun --nproc-per-node=2 ddp.py SETTINGS.json`. Rank 0 prints one JSON line. Run by fleet.py with a folder for
checkpoints, it goes on from the last one after a restart, and every rank writes down its process and its steps. The mathematics is that
of crates/models/src/losses.rs: one forward of the frozen generator on the target latents, L1 for every image, MS-SSIM for the
edited ones, batch normalisation in eval mode.
"""

import copy
import json
import os
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "tools"))
from export import native  # noqa: E402

SCALE_WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]


def gaussian(size: int = 11, sigma: float = 1.5) -> torch.Tensor:
    x = torch.arange(size, dtype=torch.float32) - size // 2
    window = torch.exp(-(x**2) / (2 * sigma**2))
    return window / window.sum()


def blur(images: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    channels = images.shape[1]
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    return F.conv2d(F.conv2d(images, columns, groups=channels), rows, groups=channels)


def ms_ssim(x: torch.Tensor, y: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    c1, c2 = 0.01**2, 0.03**2
    scales = 1 + sum(1 for scale in range(1, 5) if min(x.shape[-2:]) >> scale >= 11)
    weights = torch.tensor(SCALE_WEIGHTS[:scales])
    weights = weights / weights.sum()
    product = None
    for scale in range(scales):
        if scale > 0:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        mx, my = blur(x, window), blur(y, window)
        vx, vy, cov = blur(x * x, window) - mx * mx, blur(y * y, window) - my * my, blur(x * y, window) - mx * my
        value = (2 * cov + c2) / (vx + vy + c2)
        if scale + 1 == scales:
            value = value * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        factor = value.mean(dim=(2, 3)).clamp_min(1e-4) ** weights[scale]
        product = factor if product is None else product * factor
    return product.mean(dim=1)


def restartable(settings: dict, rank: int, step, trained: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Trains until it is killed, from the last checkpoint on, as the torchrun documentation has it."""
    folder = settings["folder"]
    checkpoint = os.path.join(folder, "checkpoint.pt")
    done = 0
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint)
        trained.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["step"]
    with open(os.path.join(folder, f"pid-{rank}"), "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))
    while done < settings["steps"]:
        step()
        done += 1
        if rank == 0 and done % settings["every"] == 0:
            torch.save(
                {"model": trained.state_dict(), "optimiser": optimiser.state_dict(), "step": done}, checkpoint + ".new"
            )
            os.replace(checkpoint + ".new", checkpoint)
        if rank == 0:
            with open(os.path.join(folder, "steps"), "a", encoding="utf-8") as file:
                file.write(f"{done} {time.time()}\n")
    dist.destroy_process_group()


def prepare(settings: dict, rank: int, world: int, guard):
    """The copy, its optimiser and a training step of one rank; `guard` makes (copy, optimiser) data parallel."""
    torch.set_num_threads(settings["threads"])
    frozen = native.build(settings["architecture"])
    frozen.load_state_dict(load_file(settings["weights"]), strict=False)
    frozen.eval().requires_grad_(False)
    trained = copy.deepcopy(frozen).requires_grad_(True)
    model, optimiser = guard(trained, torch.optim.Adam(trained.parameters(), lr=settings["lr"]))

    latent, batch, alpha = settings["architecture"]["latent"], settings["global_batch"], settings["alpha"]
    low, high = native.OUTPUT_RANGE[settings["architecture"]["output"]]
    direction = torch.zeros(latent)
    direction[0] = 1.0
    window = gaussian()
    first, last = rank * batch // world, (rank + 1) * batch // world
    generator = torch.Generator().manual_seed(rank)

    def unit(images: torch.Tensor) -> torch.Tensor:
        return ((images - low) / (high - low)).clamp(0, 1)

    def step() -> float:
        z = torch.randn(last - first, latent, generator=generator)
        projection = z @ direction
        edited = projection > settings["threshold"]
        z_hat = torch.where(edited[:, None], z - (projection - settings["threshold"])[:, None] * direction, z)
        with torch.no_grad():
            target = unit(frozen(z_hat))
        image = unit(model(z))
        weight = torch.where(edited, alpha, 1.0)
        loss = ((image - target).abs().flatten(1).mean(1) * weight).sum()
        if edited.any():
            loss = loss + alpha * (1 - ms_ssim(image[edited], target[edited], window)).sum()
        loss = loss * world / batch
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return trained, optimiser, step


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    parallel = lambda trained, optimiser: (DistributedDataParallel(trained), optimiser)  # noqa: E731
    trained, optimiser, step = prepare(settings, rank, world, parallel)
    batch = settings["global_batch"]
    if "folder" in settings:
        return restartable(settings, rank, step, trained, optimiser)
    for _ in range(settings["warmup"]):
        step()
    dist.barrier()
    began = time.perf_counter()
    for _ in range(settings["steps"]):
        step()
    dist.barrier()
    seconds = time.perf_counter() - began
    if rank == 0:
        print(json.dumps({"samples_per_second": settings["steps"] * batch / seconds, "torch": torch.__version__}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
