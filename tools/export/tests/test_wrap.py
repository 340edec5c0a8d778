"""What is put around a module, and turning it into TorchScript."""

import io

import pytest
import torch
import torch.nn.functional as F

from export import artifact, wrap
from export import module as source
from export.refusal import Refused
from export.tests import user_models
from export.tests.conftest import fill


def reloaded(module):
    return torch.jit.load(io.BytesIO(artifact.torchscript_bytes(module)))


def test_the_order_of_the_parts_before_the_module():
    inner = fill(user_models.Classifier(channels=3))
    parts = [wrap.Resize(9, 7), wrap.Rescale(0.0, 255.0), wrap.Normalize([10.0, 20.0, 30.0], [2.0, 4.0, 8.0])]
    module = wrap.wrap(inner, parts, None, [wrap.activation("sigmoid")])
    x = torch.rand(4, 3, 5, 5)
    resized = F.interpolate(x, size=(9, 7), mode="bilinear")  # growing: antialiasing changes nothing
    scaled = torch.stack([(255 * resized[:, c] - 10 * (c + 1)) / 2 ** (c + 1) for c in range(3)], dim=1)
    with torch.no_grad():
        expected = 1 / (1 + torch.exp(-inner(scaled)))
        assert (module(x) - expected).abs().max() < 1e-5
        assert (reloaded(wrap.to_torchscript(module, x).module)(x) - expected).abs().max() < 1e-5


def test_shrinking_is_antialiased():
    """Stripes of one pixel become grey; sampled at every third pixel they would stay black and white."""
    stripes = (torch.arange(27) % 2).float().expand(1, 1, 27, 27)
    small = wrap.Resize(9, 9)(stripes)
    assert (small - 0.5).abs().max() < 0.2
    plain = F.interpolate(stripes, size=(9, 9), mode="bilinear", align_corners=False)
    assert (plain - 0.5).abs().min() > 0.4


@pytest.mark.parametrize(("name", "select"), [("TwoHeads", "1"), ("DictHeads", "logits")])
def test_one_of_several_outputs(name, select):
    inner = fill(getattr(user_models, name)())
    module = wrap.wrap(inner, [], select, [])
    x = torch.rand(4, 1, 8, 8)
    compiled = wrap.to_torchscript(module, x)
    assert compiled.how.startswith("scripted")
    with torch.no_grad():
        assert torch.equal(reloaded(compiled.module)(x), user_models.Classifier.forward(inner, x))


def test_nothing_to_wrap_is_the_module_itself():
    inner = user_models.Classifier()
    assert wrap.wrap(inner, [], None, []) is inner and not inner.training


def test_another_method_and_its_unused_parts():
    module = fill(user_models.Vae())
    z = torch.randn(4, 4)
    expected = module.decode(z)
    source.use_method(module, "decode", "vae.py:Vae")
    assert wrap.prune(module, z) == ["fc1", "fc21", "fc22"]
    compiled = wrap.to_torchscript(module, z)
    assert compiled.how.startswith("scripted")
    assert torch.equal(reloaded(compiled.module)(z), expected)
    assert sorted(dict(compiled.module.named_parameters())) == [
        "fc3.bias",
        "fc3.weight",
        "fc4.bias",
        "fc4.weight",
    ]
    with pytest.raises(Refused, match="no such method"):
        source.use_method(module, "generate", "vae.py:Vae")


def test_grey_and_colour():
    """The luma of BT.601, and three equal channels, scripted as well."""
    x = torch.rand(4, 3, 5, 5)
    expected = torch.einsum("nchw,c->nhw", x, torch.tensor([0.299, 0.587, 0.114])).unsqueeze(1)
    grey, colour = torch.jit.script(wrap.Grey()), torch.jit.script(wrap.Colour())
    assert (grey(x) - expected).abs().max() < 1e-6 and abs(grey(torch.ones(1, 3, 2, 2)).max() - 1) < 1e-6
    assert torch.equal(colour(x[:, 1:2]), torch.stack([x[:, 1]] * 3, dim=1))


def test_a_weight_that_is_read_without_a_call_stays():
    class Functional(user_models.Logits):
        def forward(self, z):
            return F.linear(z, self.fc.weight, self.fc.bias)

    assert wrap.prune(Functional(), torch.randn(2, 4)) == []


def test_tracing_says_why():
    module = fill(user_models.UncompilableDcgan())
    z = torch.randn(3, 6, 1, 1)
    compiled = wrap.to_torchscript(module, z)
    assert compiled.how.startswith("traced, because scripting it failed (")
    more = torch.randn(8, 6, 1, 1)
    with torch.no_grad():
        assert (reloaded(compiled.module)(more) - module(more)).abs().max() < 1e-5


def test_the_tracers_doubts_are_told():
    assert (
        "the tracer doubts 1 place"
        in wrap.to_torchscript(fill(user_models.FixedBatch()), torch.randn(3, 4)).how
    )


def test_archives_load_without_their_debug_records():
    import zipfile

    content = artifact.torchscript_bytes(torch.jit.script(fill(user_models.Logits())))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert not [name for name in archive.namelist() if "debug" in name]
        for entry in archive.infolist():
            head = content[entry.header_offset : entry.header_offset + 30]
            start = (
                entry.header_offset
                + 30
                + int.from_bytes(head[26:28], "little")
                + int.from_bytes(head[28:30], "little")
            )
            assert start % 64 == 0
    assert user_models.__file__.encode() not in content
