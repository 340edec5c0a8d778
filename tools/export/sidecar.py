"""The sidecar description `<model file>.json`: what Lethe must know about an artifact before it runs it."""

import hashlib
import json

SCHEMA_VERSION = 1


def describe(
    model: bytes,
    *,
    kind: str,
    format: str,
    source: str,
    architecture: dict | None = None,
    latent_shape: list[int] | None = None,
    prior: str | tuple[float, float] | None = None,
    output_range: tuple[float, float] | None = None,
    clamp: bool = False,
    image_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    dimension: int | None = None,
) -> dict:
    """The description of the artifact whose bytes are `model`. Fields that its kind does not have are left out."""
    text = {"schema_version": SCHEMA_VERSION, "kind": kind, "format": format, "architecture": architecture}
    if kind == "generator":
        text["latent"] = {
            "shape": list(latent_shape),
            "prior": prior if prior == "normal" else {"uniform": list(prior)},
        }
        channels, height, width = image_shape
        text["output"] = {"range": list(output_range), "channels": channels, "height": height, "width": width}
        if clamp:
            text["output"]["clamp"] = True
    if kind == "classifier":
        text["classes"] = classes
    if kind == "features":
        text["dimension"] = dimension
    text["sha256"] = hashlib.sha256(model).hexdigest()
    text["source"] = source
    return text


def encode(description: dict) -> bytes:
    """The bytes of the sidecar file."""
    return (json.dumps(description, indent=2) + "\n").encode()
