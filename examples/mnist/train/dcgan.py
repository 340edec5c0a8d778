"""Trains a DCGAN and ships the moving average of its generator.

    python dcgan.py --data DIR [--state FILE]

Writes models/dcgan.safetensors: z ~ N(0, I) in 64 dimensions -> [N, 1, 28, 28] in [-1, 1], the native architecture
`dcgan`. The discriminator is thrown away: it has no BatchNorm, and the R1 penalty (Mescheder et al. 2018) on every 16th
step keeps it from overpowering the generator. On the way the distance to training images is printed, never that to the
test set. With `--state` an interrupted run goes on where it was saved.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import artifact
import frechet
import mnist

SEED = 3
STEPS = 13_000
BATCH = 64
RATE = 2e-4
BETAS = (0.5, 0.999)
PENALTY = 1.0
PENALTY_EVERY = 16
AVERAGE = 0.999  # kept of the generator's weights per step, less in the beginning
LATENT = 64
BASE = 7
WIDTHS = [128, 64]
LOOK_EVERY = 1000
SAMPLES = 10_000


class Layer(nn.Module):
    """A transposed convolution, and BatchNorm and ReLU behind all but the last."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, last: bool) -> None:
        super().__init__()
        padding = 1 if stride == 2 else 0
        self.conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.Identity() if last else nn.BatchNorm2d(outputs)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.grow(x))
        return torch.tanh(x) if self.last else F.relu(x)

    def grow(self, x: torch.Tensor) -> torch.Tensor:
        """`self.conv`, by kernels that are several times faster for one pixel and for one channel."""
        if self.conv.padding == (0, 0):
            return torch.tensordot(x[:, :, 0, 0], self.conv.weight, 1)
        if self.last:
            return torch.ops.aten.slow_conv_transpose2d(x, self.conv.weight, [4, 4], None, [2, 2], [1, 1])
        return self.conv(x)


class Generator(nn.Module):
    """[N, latent] -> [N, 1, 28, 28] in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip(WIDTHS, [*WIDTHS[1:], 1], strict=True))
        self.layers = nn.ModuleList([Layer(LATENT, WIDTHS[0], BASE, 1, last=False)])
        self.layers.extend(Layer(a, b, 4, 2, last=b == 1) for a, b in pairs)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = latents[:, :, None, None]
        for layer in self.layers:
            x = layer(x)
        return x


def discriminator() -> nn.Module:
    """[N, 1, 28, 28] in [-1, 1] -> logits [N, 1], positive for real."""
    return nn.Sequential(
        nn.Conv2d(1, 48, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(48, 96, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(96 * BASE * BASE, 256),
        nn.LeakyReLU(0.2),
        nn.Linear(256, 1),
    )


def penalty(d: nn.Module, real: torch.Tensor) -> torch.Tensor:
    """R1: half the mean squared norm of the discriminator's slope at real images."""
    real.requires_grad_()
    (slope,) = torch.autograd.grad(d(real).sum(), real, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean() / 2


@torch.no_grad()
def settled(average: Generator, batches: int = 100) -> Generator:
    """A copy in eval mode, with BatchNorm statistics estimated anew for its averaged weights."""
    generator = copy.deepcopy(average).train()
    for norm in (m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    source = torch.Generator().manual_seed(SEED)
    for _ in range(batches):
        generator(torch.randn(128, LATENT, generator=source))
    return generator.eval()


class Training:
    """Both networks, the average, and one optimiser each for the two."""

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.g, self.d = Generator(), discriminator()
        self.average = copy.deepcopy(self.g)
        self.for_g, self.for_d = (
            torch.optim.Adam(net.parameters(), RATE, BETAS, fused=True) for net in (self.g, self.d)
        )
        self.step = 0

    def parts(self) -> dict:
        return {name: part for name, part in vars(self).items() if hasattr(part, "state_dict")}

    def save(self, path: Path) -> None:
        states = {name: part.state_dict() for name, part in self.parts().items()}
        whole = path.with_name(path.name + ".new")
        torch.save({"step": self.step, "dice": torch.get_rng_state(), **states}, whole)
        whole.replace(path)

    def load(self, path: Path) -> None:
        saved = torch.load(path)
        for name, part in self.parts().items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["dice"])
        self.step = saved["step"]

    def advance(self, images: torch.Tensor) -> tuple[float, float]:
        """One step of either network on u8 images; gives the losses."""
        real = mnist.to_float(images[torch.randint(len(images), (BATCH,))]) * 2 - 1
        fake = self.g(torch.randn(BATCH, LATENT))
        loss_d = F.softplus(-self.d(real)).mean() + F.softplus(self.d(fake.detach())).mean()
        total = loss_d
        if self.step % PENALTY_EVERY == 0:
            total = loss_d + PENALTY * PENALTY_EVERY * penalty(self.d, real)
        self.for_d.zero_grad()
        total.backward()
        self.for_d.step()

        self.d.requires_grad_(False)  # a third of the backward pass
        loss_g = F.softplus(-self.d(fake)).mean()
        self.for_g.zero_grad()
        loss_g.backward()
        self.for_g.step()
        self.d.requires_grad_(True)

        with torch.no_grad():
            keep = min(AVERAGE, 1 - 10 / (self.step + 20))
            for kept, now in zip(self.average.parameters(), self.g.parameters(), strict=True):
                kept.lerp_(now, 1 - keep)
        self.step += 1
        return loss_d.item(), loss_g.item()


@torch.no_grad()
def look(generator: Generator, reference: torch.Tensor) -> float:
    """Distance of SAMPLES images to those with the features `reference`."""
    latents = torch.randn(SAMPLES, LATENT, generator=torch.Generator().manual_seed(SEED))
    images = torch.cat([(generator(z) + 1) / 2 for z in latents.split(500)])
    return frechet.distance(frechet.run("features", images), reference)


def train(images: torch.Tensor, state: Path | None) -> Generator:
    """Fits both networks to u8 images."""
    training = Training()
    if state is not None and state.exists():
        training.load(state)
    reference = frechet.run("features", mnist.to_float(images[:SAMPLES]))
    while training.step < STEPS:
        loss_d, loss_g = training.advance(images)
        if training.step % LOOK_EVERY == 0:
            distance = look(settled(training.average), reference)
            print(f"step {training.step}/{STEPS} d {loss_d:.3f} g {loss_g:.3f} distance {distance:.2f}", flush=True)
            if state is not None:
                training.save(state)
    return settled(training.average)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--state", type=Path, help="where the run is saved on the way, and goes on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the result depends on it, in the last bits
    images, _ = mnist.load(arguments.data, "train")
    weights = train(images, arguments.state).state_dict()
    artifact.write_safetensors(
        "dcgan",
        {name: value for name, value in weights.items() if "num_batches" not in name},
        kind="generator",
        architecture={
            "name": "dcgan",
            "latent": LATENT,
            "base": BASE,
            "widths": WIDTHS,
            "channels": 1,
            "output": "tanh",
        },
        latent={"shape": [LATENT], "prior": "normal"},
        output={"range": [-1, 1], "channels": 1, "height": 28, "width": 28},
        source=artifact.SOURCE.format(script="dcgan.py"),
    )


if __name__ == "__main__":
    main()
