"""Training with a one-cycle learning rate, as every script here does it but the GAN's. What is trained is not here."""

from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import OneCycleLR


def fit(
    optimiser: torch.optim.Optimizer,
    peak_rate: float,
    epochs: int,
    batch: int,
    count: int,
    loss: Callable[[torch.Tensor], torch.Tensor],
    say: Callable[[float, float], str],
) -> None:
    """Lowers `loss`, which is given the rows of a batch out of `count`; a last batch that is not full is left out.

    After each epoch prints what `say` makes of the mean loss of a batch and of the last one.
    """
    steps = epochs * (count // batch)
    schedule = OneCycleLR(optimiser, peak_rate, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(count)[: steps // epochs * batch].split(batch):
            value = loss(rows)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
            total += value.item()
        print(f"epoch {epoch + 1}/{epochs} {say(total * epochs / steps, value.item())}", flush=True)
