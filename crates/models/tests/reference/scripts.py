"""Small TorchScript modules as people export them, sound and unsound, that the tests of lethe-models and of the executor read.

`python crates/models/tests/reference/scripts.py` writes `scripts/*.pt` beside this file, and `scripts/expected.safetensors`: latents and
the images that PyTorch makes of them. Generators take [N, 4] and give 8x8 pixels, labellers and features look at those.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from make import without_traces

FOLDER = Path(__file__).resolve().parent / "scripts"
torch.set_num_threads(1)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.l0, self.l1, self.l2 = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 64)
        with torch.no_grad():
            for layer in (self.l0, self.l1, self.l2):
                layer.weight *= 3

    def logits(self, z: Tensor) -> Tensor:
        return self.l2(torch.relu(self.l1(torch.relu(self.l0(z)))))

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z)).reshape(-1, 1, 8, 8)


class Aliased(Plain):
    """The same layers under a second name."""

    def __init__(self):
        super().__init__()
        self.blocks, self.last = nn.ModuleList([self.l0, self.l1]), self.l2

    def forward(self, z: Tensor) -> Tensor:
        for block in self.blocks:
            z = torch.relu(block(z))
        return torch.sigmoid(self.last(z)).reshape(-1, 1, 8, 8)


class Twice(Plain):
    """A layer that is used twice."""

    def logits(self, z: Tensor) -> Tensor:
        return self.l2(torch.relu(self.l1(torch.relu(self.l1(torch.relu(self.l0(z)))))))


class Tied(Plain):
    """The same, as two layers that share their weights."""

    def __init__(self):
        super().__init__()
        self.l3 = nn.Linear(16, 16)
        self.l3.weight, self.l3.bias = self.l1.weight, self.l1.bias

    def logits(self, z: Tensor) -> Tensor:
        return self.l2(torch.relu(self.l3(torch.relu(self.l1(torch.relu(self.l0(z)))))))


class Cut(Plain):
    """A layer cut out of a larger one: its weight is a view with gaps."""

    def __init__(self):
        super().__init__()
        self.l1.weight = nn.Parameter(torch.cat([self.l1.weight.data, torch.zeros(16, 16)], 1)[:, :16])


class Halves(Plain):
    """Two weights, the left and the right half of one matrix."""

    def __init__(self):
        super().__init__()
        both = torch.cat([self.l1.weight.data, self.l1.weight.data.flip(0)], 1)
        self.l3 = nn.Linear(16, 16)
        self.l1.weight, self.l3.weight = nn.Parameter(both[:, :16]), nn.Parameter(both[:, 16:])

    def logits(self, z: Tensor) -> Tensor:
        return self.l2(torch.relu(self.l3(torch.relu(self.l1(torch.relu(self.l0(z)))))))


class Overlapping(Halves):
    """Two weights that share a column."""

    def __init__(self):
        super().__init__()
        both = torch.cat([self.l1.weight.data, self.l1.weight.data.flip(0)], 1)
        self.l1.weight, self.l3.weight = nn.Parameter(both[:, :16]), nn.Parameter(both[:, 15:31])


class Transposed(Halves):
    """A weight that is the transpose of another one."""

    def __init__(self):
        super().__init__()
        self.l3.weight = nn.Parameter(self.l1.weight.data.t())


class Mixed(Plain):
    """Two of three layers in bfloat16, as a saved mixed-precision generator has them."""

    def __init__(self):
        super().__init__()
        self.l1, self.l2 = self.l1.bfloat16(), self.l2.bfloat16()

    def forward(self, z: Tensor) -> Tensor:
        x = torch.relu(self.l0(z)).to(torch.bfloat16)
        return torch.sigmoid(self.l2(torch.relu(self.l1(x)))).float().reshape(-1, 1, 8, 8)


class Half(Plain):
    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z.half())).float().reshape(-1, 1, 8, 8)


class Double(Plain):
    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z.double())).reshape(-1, 1, 8, 8)


class GivesHalf(Plain):
    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z)).reshape(-1, 1, 8, 8).half()


class GivesComplex(Plain):
    def forward(self, z: Tensor) -> Tensor:
        x = torch.sigmoid(self.logits(z)).reshape(-1, 1, 8, 8)
        return torch.complex(x, x)


class Complex(Plain):
    def __init__(self):
        super().__init__()
        self.phase = nn.Parameter(torch.ones(64, dtype=torch.complex64))

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid((self.logits(z) * self.phase).abs()).reshape(-1, 1, 8, 8)


class Flat(Plain):
    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z)).reshape(-1, 8, 8)


class Unbounded(Plain):
    """No tanh: a little beyond [-1, 1]."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z)).reshape(-1, 1, 8, 8) * 2.3 - 1.15


class Noise(Plain):
    def forward(self, z: Tensor) -> Tensor:
        x = self.logits(z)
        return torch.sigmoid(x + 0.1 * torch.randn_like(x)).reshape(-1, 1, 8, 8)


class Dropped(Plain):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.2)

    def logits(self, z: Tensor) -> Tensor:
        return self.l2(self.drop(torch.relu(self.l1(torch.relu(self.l0(z))))))


class Normed(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def logits(self, z: Tensor) -> Tensor:
        return self.l2(torch.relu(self.l1(torch.relu(self.norm(self.l0(z))))))


class Centred(Plain):
    """Looks at the mean of the batch, and keeps nothing."""

    def logits(self, z: Tensor) -> Tensor:
        x = self.l0(z)
        return self.l2(torch.relu(self.l1(torch.relu(x - x.mean(0)))))


class Stateful(Plain):
    """Keeps a running mean in forward, also in eval mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(16))

    def logits(self, z: Tensor) -> Tensor:
        x = torch.relu(self.l0(z))
        self.average.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return self.l2(torch.relu(self.l1(x + (x - self.average) * 0.2)))


class FixedBatch(Plain):
    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z)).reshape(64, 1, 8, 8)


class InPlace(Plain):
    def forward(self, z: Tensor) -> Tensor:
        z.mul_(0.8)
        return torch.sigmoid(self.logits(z)).reshape(-1, 1, 8, 8)


class Copied(Plain):
    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z * 0.8)).reshape(-1, 1, 8, 8)


class Placed(Plain):
    def forward(self, z):
        return (torch.sigmoid(self.logits(z)) + torch.zeros(1)).reshape(-1, 1, 8, 8)


class Eyes(nn.Module):
    """Looks at images: a convolution, then two classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(8)
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3))) * 40

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)


class Softmax(Eyes):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.logits(x), 1)


class Sigmoid(Eyes):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x)[:, :1])


class Score(Eyes):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)[:, 1] - self.logits(x)[:, 0]


class HalfEyes(Eyes):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x.half())


class DoubleEyes(Eyes):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x.double())


class WritingEyes(Eyes):
    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5)
        return self.logits(x)


class DroppedEyes(Eyes):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.conv(x)).mean((2, 3)))) * 40


class NormedEyes(Eyes):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3))) * 40


def packed(module: torch.jit.ScriptModule) -> bytes:
    archive = io.BytesIO()
    torch.jit.save(module, archive)
    return without_traces(archive)


def scripted(module: nn.Module) -> bytes:
    return packed(torch.jit.script(module.eval()))


def traced(module: nn.Module, example: Tensor) -> bytes:
    return packed(torch.jit.trace(module, example, check_trace=False))


def edited(archive: bytes, name: str, old: bytes, new: bytes) -> bytes:
    """The archive with other words in the files whose names end like this."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            fits = entry.filename.endswith(name)
            target.writestr(zipfile.ZipInfo(entry.filename), content.replace(old, new) if fits else content)
    return changed.getvalue()


def frozen(module: nn.Module, *layers: str) -> nn.Module:
    for layer in layers:
        module.get_submodule(layer).requires_grad_(False)
    return module


def main() -> None:
    z, x = torch.randn(64, 4, generator=torch.Generator().manual_seed(9)), torch.zeros(64, 1, 8, 8)
    sound = {
        "plain": Plain(), "aliased": Aliased(), "twice": Twice(), "tied": Tied(), "cut": Cut(), "halves": Halves(),
        "mixed": Mixed(), "half": Half().half(), "double": Double().double(), "gives_half": GivesHalf(), "flat": Flat(),
        "unbounded": Unbounded(), "copied": Copied(),
    }  # fmt: skip
    files = {name: scripted(module) for name, module in sound.items()}
    files |= {
        "half_without_casts": scripted(Plain().half()),
        "double_without_casts": scripted(Plain().double()),
        "in_place": scripted(InPlace()),
        "frozen_layer": scripted(frozen(Plain(), "l0")),
        "frozen": scripted(frozen(Plain(), "l0", "l1", "l2")),
        "overlapping": scripted(Overlapping()),
        "transposed": scripted(Transposed()),
        "complex": scripted(Complex()),
        "gives_complex": scripted(GivesComplex()),
        "noise": scripted(Noise()),
        "dropped": traced(Dropped().train(), z),
        "normed": traced(Normed().train(), z),
        "centred": scripted(Centred()),
        "stateful": scripted(Stateful()),
        "fixed_batch": scripted(FixedBatch()),
        "on_a_gpu": edited(traced(Placed().eval(), z), ".py", b'torch.device("cpu")', b'torch.device("cuda:0")'),
        "operator": edited(files["plain"], ".py", b"torch.sigmoid(", b"ops.torchvision.sigmoid("),
        "newer": edited(files["plain"], "/version", b"3", b"99"),
        "eyes": scripted(Eyes()),
        "softmax": scripted(Softmax()),
        "sigmoid": scripted(Sigmoid()),
        "score": scripted(Score()),
        "half_eyes": scripted(HalfEyes().half()),
        "double_eyes": scripted(DoubleEyes().double()),
        "writing_eyes": scripted(WritingEyes()),
        "dropped_eyes": traced(DroppedEyes().train(), x),
        "normed_eyes": traced(NormedEyes().train(), x),
    }
    FOLDER.mkdir(exist_ok=True)
    for name, content in files.items():
        (FOLDER / f"{name}.pt").write_bytes(content)
    with torch.no_grad():
        expected = {"z": z} | {name: module(z).float() for name, module in sound.items()}
        expected["eyes"] = Eyes()(expected["plain"])
    place = FOLDER / "expected.safetensors"
    save_file({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in expected.items()}, place)
    place.chmod(0o644)


if __name__ == "__main__":
    main()
