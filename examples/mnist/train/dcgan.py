"""Trains a DCGAN and ships the moving average of its generator.

    python dcgan.py --data DIR

Writes models/dcgan.safetensors: z ~ N(0, I) in 64 dimensions -> [N, 1, 28, 28] in [-1, 1],
the native architecture `dcgan`. The discriminator is thrown away: it has no BatchNorm, and
the R1 penalty (Mescheder et al. 2018) on every 16th step keeps it from overpowering the generator.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import artifact
import mnist

SEED = 3
STEPS = 3000
BATCH = 64
RATE = 2e-4
BETAS = (0.5, 0.999)
PENALTY = 1.0
PENALTY_EVERY = 16
AVERAGE = 0.999  # kept of the generator's weights per step, less in the beginning
LATENT = 64
BASE = 7
WIDTHS = [128, 64]


class Layer(nn.Module):
    """A transposed convolution, and BatchNorm and ReLU behind all but the last."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, last: bool) -> None:
        super().__init__()
        padding = 1 if stride == 2 else 0
        self.conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.Identity() if last else nn.BatchNorm2d(outputs)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        return torch.tanh(x) if self.last else F.relu(x)


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
def settle(generator: Generator, batches: int = 100) -> None:
    """Re-estimates the BatchNorm statistics for averaged weights, and turns to eval mode."""
    torch.manual_seed(SEED)
    for norm in (m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    generator.train()
    for _ in range(batches):
        generator(torch.randn(128, LATENT))
    generator.eval()


def train(images: torch.Tensor) -> Generator:
    """Fits both networks to u8 images."""
    torch.manual_seed(SEED)
    g, d = Generator(), discriminator()
    average = copy.deepcopy(g)
    for_g, for_d = (torch.optim.Adam(net.parameters(), RATE, BETAS) for net in (g, d))
    for step in range(STEPS):
        real = mnist.to_float(images[torch.randint(len(images), (BATCH,))]) * 2 - 1
        fake = g(torch.randn(BATCH, LATENT))
        on_real, on_fake = d(torch.cat([real, fake.detach()])).chunk(2)
        loss_d = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        total = loss_d
        if step % PENALTY_EVERY == 0:
            total = loss_d + PENALTY * PENALTY_EVERY * penalty(d, real)
        for_d.zero_grad()
        total.backward()
        for_d.step()

        loss_g = F.softplus(-d(fake)).mean()
        for_g.zero_grad()
        loss_g.backward()
        for_g.step()

        with torch.no_grad():
            keep = min(AVERAGE, 1 - 10 / (step + 20))
            for kept, now in zip(average.parameters(), g.parameters(), strict=True):
                kept.lerp_(now, 1 - keep)
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}/{STEPS} d {loss_d.item():.3f} g {loss_g.item():.3f}", flush=True)
    settle(average)
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the result depends on it, in the last bits
    images, _ = mnist.load(arguments.data, "train")
    weights = train(images).state_dict()
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
