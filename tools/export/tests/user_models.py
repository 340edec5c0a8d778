"""Modules as users write them: what the tests export. None of them knows Lethe."""

import torch
import torch.nn.functional as F
from torch import nn


class Dcgan(nn.Module):
    """The usual Sequential called `main`, for latents [N, nz, 1, 1]."""

    def __init__(self, nz=6, widths=(12, 8), channels=1, base=4, bias=False, last_bias=False):
        super().__init__()
        layers, inputs = [], nz
        for i, width in enumerate(widths):
            layers += [
                nn.ConvTranspose2d(inputs, width, *((base, 1, 0) if i == 0 else (4, 2, 1)), bias=bias),
                nn.BatchNorm2d(width),
                nn.ReLU(True),
            ]
            inputs = width
        layers += [nn.ConvTranspose2d(inputs, channels, 4, 2, 1, bias=last_bias), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, input):
        return self.main(input)


class UncompilableDcgan(Dcgan):
    """Its forward is beyond torch.jit.script, so that it must be traced."""

    def forward(self, input):
        options = {**{"scale": 1.0}}
        return self.main(input) * options["scale"]


class Vae(nn.Module):
    """Encoder and decoder in one class, as in most tutorials."""

    def __init__(self, pixels=30, hidden=16, latent=4):
        super().__init__()
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21 = nn.Linear(hidden, latent)
        self.fc22 = nn.Linear(hidden, latent)
        self.fc3 = nn.Linear(latent, hidden)
        self.fc4 = nn.Linear(hidden, pixels)

    def encode(self, x):
        h = F.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.flatten(1))
        return self.decode(mu), mu, logvar


class ConvVae(nn.Module):
    """A convolutional decoder with names of its own."""

    def __init__(self):
        super().__init__()
        self.from_latent = nn.Linear(3, 5 * 4 * 4)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(5, 6, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 4, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(4, 3, 3, 1, 1),
        )

    def forward(self, z):
        return torch.sigmoid(self.up(F.relu(self.from_latent(z)).view(-1, 5, 4, 4)))


class LeNet(nn.Module):
    """Ten log-probabilities for 1 x 32 x 32 images, layers named as in the third-party weights."""

    def __init__(self):
        super().__init__()
        self.convnet = nn.ModuleDict(
            {"c1": nn.Conv2d(1, 6, 5), "c3": nn.Conv2d(6, 16, 5), "c5": nn.Conv2d(16, 120, 5)}
        )
        self.fc = nn.ModuleDict({"f6": nn.Linear(120, 84), "f7": nn.Linear(84, 10)})

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.convnet["c1"](x)), 2)
        x = F.max_pool2d(F.relu(self.convnet["c3"](x)), 2)
        x = F.relu(self.convnet["c5"](x)).flatten(1)
        return F.log_softmax(self.fc["f7"](F.relu(self.fc["f6"](x))), dim=1)


class Classifier(nn.Module):
    def __init__(self, classes=3, channels=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, stride=2)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(F.relu(self.conv(x)).mean(dim=(2, 3)))


class Unpooled(Classifier):
    def forward(self, x):
        return F.relu(self.conv(x))


class TwoHeads(Classifier):
    def forward(self, x):
        features = F.relu(self.conv(x)).mean(dim=(2, 3))
        return features, self.head(features)


class DictHeads(Classifier):
    def forward(self, x):
        features = F.relu(self.conv(x)).mean(dim=(2, 3))
        return {"features": features, "logits": self.head(features)}


class Brightness(nn.Module):
    """A scorer without weights."""

    def forward(self, x):
        return x.mean(dim=(1, 2, 3))


class Logits(nn.Module):
    """A generator that ends before its activation."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 30)

    def forward(self, z):
        return 3 * self.fc(z)


class Dropout(Logits):
    """Dropout that eval mode does not switch off."""

    def forward(self, z):
        return torch.sigmoid(F.dropout(self.fc(z)))


class BatchStatistics(Logits):
    """Normalises over the batch."""

    def forward(self, z):
        x = self.fc(z)
        return torch.sigmoid(x - x.mean(dim=0, keepdim=True))


class FixedBatch(Logits):
    """Cannot be scripted, and its trace holds the batch size."""

    def forward(self, z):
        return torch.sigmoid(self.fc(z)).reshape(*[int(z.shape[0]), 30])


class Overflowing(Logits):
    def forward(self, z):
        return torch.sigmoid(self.fc(z)) / (z[:, :1] > 0)


class Beyond(Logits):
    """Goes slightly beyond [0, 1], as generators without a last activation do."""

    def forward(self, z):
        return 1.1 * torch.sigmoid(self.fc(z)) - 0.05


class Half(Logits):
    def forward(self, z):
        return torch.sigmoid(self.fc(z)).half()


class Double(Logits):
    def forward(self, z):
        return torch.sigmoid(self.fc(z)).double()


class GreyRows(Logits):
    """Images without a dimension for their one channel."""

    def forward(self, z):
        return torch.sigmoid(self.fc(z)).reshape(-1, 5, 6)


class Bytes(Logits):
    """Ready to be saved, and so without a gradient."""

    def forward(self, z):
        return (255 * torch.sigmoid(self.fc(z))).to(torch.uint8)


class Detached(Logits):
    def forward(self, z):
        return torch.sigmoid(self.fc(z)).detach()


class Conditional(Logits):
    """Wants a label besides."""

    def forward(self, z, label):
        return torch.sigmoid(self.fc(z) + label)


class Transposed(Logits):
    def forward(self, z):
        return torch.sigmoid(self.fc(z)).t()


class InPlace(Logits):
    """Changes the latents that it is given."""

    def forward(self, z):
        return torch.sigmoid(self.fc(z.mul_(0.5)))


class Softmax(Classifier):
    def forward(self, x):
        return super(Softmax, self).forward(x).softmax(dim=1)


class Argmax(Classifier):
    def forward(self, x):
        return self.head(F.relu(self.conv(x)).mean(dim=(2, 3))).argmax(dim=1)


def unit_vae():
    """A function instead of a class."""
    return Vae(pixels=30, hidden=16, latent=4)


def not_a_module():
    return 3
