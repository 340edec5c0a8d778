"""The decoder of a VAE as its author would have it: nothing here knows Lethe."""

from pathlib import Path

import torch
from torch import nn


class Decoder(nn.Module):
    """Latents [N, 16] from N(0, I) to images [N, 1, 28, 28] in [0, 1]."""

    def __init__(self, latent=16, hidden=512):
        super().__init__()
        self.enter = nn.Linear(latent, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.paint = nn.Linear(hidden, 28 * 28)

    def forward(self, z):
        h = torch.relu(self.middle(torch.relu(self.enter(z))))
        return torch.sigmoid(self.paint(h)).view(-1, 1, 28, 28)


def trained():
    """The decoder with its weights, from the file beside this one."""
    decoder = Decoder()
    checkpoint = torch.load(Path(__file__).with_name("decoder.pth"), weights_only=True)
    decoder.load_state_dict(checkpoint["model"])
    return decoder
