"""The DCGAN's training goes on from a saved state as if it had never stopped."""

from pathlib import Path

import dcgan
import torch

torch.set_num_threads(1)

SAVED_AT, END = 1, 4


def test_an_interrupted_run_gives_the_same_weights(tmp_path: Path):
    images = torch.randint(256, (256, 1, 28, 28), dtype=torch.uint8)
    whole = dcgan.Training()
    for step in range(END):
        if step == SAVED_AT:
            whole.save(tmp_path / "state")
        losses = whole.advance(images)
    resumed = dcgan.Training()
    resumed.load(tmp_path / "state")
    assert resumed.step == SAVED_AT
    while resumed.step < END:
        again = resumed.advance(images)
    assert again == losses
    for name, tensor in whole.average.state_dict().items():
        assert torch.equal(tensor, resumed.average.state_dict()[name]), name
