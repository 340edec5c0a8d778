"""The Frechet distance of the examples, and the models it is taken with. Drawing samples is deliberately not here."""

import numpy as np
import torch

import artifact


@torch.no_grad()
def run(name: str, images: torch.Tensor) -> torch.Tensor:
    """Outputs of the shipped TorchScript model `name`."""
    model = torch.jit.load(artifact.MODELS / f"{name}.pt")
    return torch.cat([model(part) for part in images.split(500)])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Frechet distance of Gaussians fitted to two sets of features (Heusel et al. 2017)."""
    (mean_a, cov_a), (mean_b, cov_b) = (
        (x.mean(0), np.cov(x, rowvar=False)) for x in (a.double().numpy(), b.double().numpy())
    )
    # The trace of the product's root. A feature that is never on makes the product singular, which a root of the whole
    # matrix does not bear.
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * root)
