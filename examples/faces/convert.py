"""Makes the artifacts of smile.yaml out of what fetch.py fetched, with tools/export.

    python convert.py [FOLDER]        by default .models beside this file; what was fetched lies in FOLDER/fetched
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPORT = HERE.parents[1] / "tools" / "export"
# The square around the face in one of the 64 px portraits, as a detector cuts it out: these nets were trained on such.
FACES = ["--channels", "3", "--size", "64", "--crop", "16,10,44,44"]


def main(folder: Path) -> None:
    fetched = folder / "fetched"
    here, there = json.dumps([str(fetched)]), json.dumps([str(fetched / "emotion_model.hdf5")])
    face_api = "@vladmandic/face-api 1.7.15, MIT"

    def net(name: str) -> list[str]:
        return ["--module", f"{HERE / 'face_api.py'}:{name}", "--args", here, "--source", face_api]

    export(
        folder / "generator.safetensors",
        *["--kind", "generator", "--architecture", "dcgan", "--output-range", "-1,1"],
        *["--weights", str(fetched / "dcGanGeneratorModel.pt")],
        *["--module", f"{HERE / 'generator.py'}:Generator", "--latent-shape", "100,1,1"],
        *["--source", "generateme 0.1.2, MIT"],
    )
    export(
        folder / "emotion.pt",
        *["--kind", "classifier", *FACES, "--resize", "64,64", "--classes", "7", "--grey", "--from-range", "-1,1"],
        *["--module", f"{HERE / 'emotion.py'}:trained", "--args", there],
        *["--source", "fer 25.10.3, MIT"],
    )
    small, large = ["--resize", "112,112"], ["--resize", "150,150"]
    export(folder / "expression.pt", "--kind", "classifier", *FACES, *small, "--classes", "7", *net("expression"))
    export(
        folder / "gender.pt",
        *["--kind", "classifier", *FACES, *small, "--classes", "2", "--select", "1", *net("age_gender")],
    )
    export(folder / "age.pt", "--kind", "scorer", *FACES, *small, "--select", "0", *net("age_gender"))
    export(folder / "descriptor.pt", "--kind", "features", *FACES, *large, *net("descriptor"))


def export(artifact: Path, *options: str) -> None:
    command = [sys.executable, str(EXPORT), "--out", str(artifact), *options]
    # TorchScript lists attributes in the order of a set. With fixed hashes the bytes are the same every time, so that a
    # job goes on when the files it was accepted with are made again.
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "0"})
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    print(f"wrote {artifact}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / ".models")
