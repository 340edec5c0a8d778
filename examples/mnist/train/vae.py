"""Trains a variational autoencoder and ships its decoder.

    python vae.py --data DIR

Writes models/vae.safetensors: z ~ N(0, I) in 16 dimensions -> [N, 1, 28, 28] in [0, 1],
the native architecture `mlp_decoder`. The encoder is thrown away.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import artifact
import mnist
import one_cycle

SEED = 2
EPOCHS = 40
BATCH = 128
PEAK_RATE = 2e-3
LATENT = 16
HIDDEN = [512, 512]
PIXELS = 28 * 28


def encoder() -> nn.Module:
    """[N, 784] in [0, 1] -> mean and log-variance side by side, [N, 2 latent]."""
    return nn.Sequential(
        nn.Linear(PIXELS, HIDDEN[1]),
        nn.ReLU(),
        nn.Linear(HIDDEN[1], HIDDEN[0]),
        nn.ReLU(),
        nn.Linear(HIDDEN[0], 2 * LATENT),
    )


class Decoder(nn.Module):
    """[N, latent] -> logits [N, 784]; the shipped model ends in their sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip([LATENT, *HIDDEN], [*HIDDEN, PIXELS], strict=True)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = latents
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def negative_elbo(encode: nn.Module, decode: Decoder, images: torch.Tensor) -> torch.Tensor:
    """Kingma & Welling 2014, Bernoulli likelihood, nats per image."""
    mean, log_variance = encode(images).chunk(2, dim=1)
    latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    logits = decode(latents)
    likelihood = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum()
    return (likelihood + divergence) / len(images)


def train(images: torch.Tensor) -> Decoder:
    """Fits both halves to u8 images with a one-cycle learning rate."""
    torch.manual_seed(SEED)
    encode, decode = encoder(), Decoder()
    parameters = [*encode.parameters(), *decode.parameters()]
    optimiser = torch.optim.Adam(parameters)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return negative_elbo(encode, decode, mnist.to_float(images[rows]).flatten(1))

    one_cycle.fit(optimiser, PEAK_RATE, EPOCHS, BATCH, len(images), loss, lambda mean, _: f"loss {mean:.2f} nats")
    return decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the result depends on it, in the last bits
    images, _ = mnist.load(arguments.data, "train")
    decoder = train(images)
    artifact.write_safetensors(
        "vae",
        decoder.state_dict(),
        kind="generator",
        architecture={
            "name": "mlp_decoder",
            "latent": LATENT,
            "hidden": HIDDEN,
            "activation": "relu",
            "output": "sigmoid",
            "shape": [1, 28, 28],
        },
        latent={"shape": [LATENT], "prior": "normal"},
        output={"range": [0, 1], "channels": 1, "height": 28, "width": 28},
        source=artifact.SOURCE.format(script="vae.py"),
    )


if __name__ == "__main__":
    main()
