"""From options to the bytes of an artifact and its sidecar, checked. Writes nothing."""

import argparse
import io
import math
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import nn

from . import artifact, check, job, mapping, module, native, sidecar, weights, wrap
from .refusal import Refused


@dataclass
class Exported:
    model: bytes
    description: bytes
    job: str
    report: check.Report


@dataclass
class Product:
    """An artifact's bytes and the model read back from them; `original` is None when there is only a state dict."""

    content: bytes
    model: nn.Module
    original: nn.Module | None
    architecture: dict | None = None


def export(options: argparse.Namespace) -> Exported:
    """Reads, wraps, converts and checks. Raises `Refused`."""
    report = check.Report()
    tensors = None
    if options.weights:
        found = weights.read(options.weights, options.entry)
        report.add("read", f"{options.weights.name}: {found.what}")
        tensors = found.tensors
    make = _native if options.architecture else _torchscript
    product = make(options, tensors, report)
    verify = _check_generator if options.kind == "generator" else _check_labeller
    facts = verify(options, product, report)
    job.complete(options, facts)
    lines = job.lines(options, facts)
    facts.pop("output", None)  # the job's to say
    described = sidecar.describe(
        product.content,
        kind=options.kind,
        format=options.format,
        source=options.source or _source(options),
        architecture=product.architecture if options.format == "safetensors" else None,
        **facts,
    )
    return Exported(product.content, sidecar.encode(described), lines, report)


def _source(options: argparse.Namespace) -> str:
    origin = options.weights.name if options.weights else options.module.rpartition("/")[2]
    return f"exported from {origin}; origin and licence not stated"


def _samples(options: argparse.Namespace, latent_shape: list[int] | None) -> torch.Tensor:
    if options.kind == "generator":
        return check.latents(latent_shape, options.prior, options.samples)
    return check.images(options.channels, *options.size, options.samples)


def _native(options: argparse.Namespace, tensors: dict[str, torch.Tensor], report: check.Report) -> Product:
    output = next((name for name, span in native.OUTPUT_RANGE.items() if span == options.output_range), None)
    if output is None:
        raise Refused(
            "a native architecture ends in sigmoid, range 0,1, or tanh, range -1,1; --output-range is "
            f"{options.output_range}"
        )
    shape = (options.channels, *options.size) if options.channels and options.size else None
    mapped = mapping.to_native(
        options.architecture,
        weights.rename(tensors, options.map, options.drop),
        output=output,
        activation=options.hidden_activation,
        shape=shape,
    )
    for note in mapped.notes:
        report.add("map", note)
    _agree(
        "latent dimension",
        options.latent_shape and math.prod(options.latent_shape),
        mapped.architecture["latent"],
        "--latent, or leave out an encoder with --drop PREFIX",
    )
    made = native.image_shape(mapped.architecture)
    _agree("number of channels", options.channels, made[0], "--channels")
    _agree("size", options.size, made[1:], "--size")
    if options.format == "safetensors":
        content = artifact.safetensors_bytes(mapped.tensors)
        model = native.load(mapped.architecture, safetensors.torch.load(content))
    else:
        content, model = _compile(
            native.load(mapped.architecture, mapped.tensors), options, [mapped.architecture["latent"]], report
        )
    original = None
    if options.module:
        latent_shape = options.latent_shape or [mapped.architecture["latent"]]
        original = _original(options, tensors, [], _samples(options, latent_shape), report)
    return Product(content, model, original, mapped.architecture)


def _agree(what: str, declared: object, found: object, option: str) -> None:
    if declared and declared != found:
        raise Refused(f"the {what} declared is {declared}, that of the weights {found}: correct {option}")


def _torchscript(
    options: argparse.Namespace, tensors: dict[str, torch.Tensor] | None, report: check.Report
) -> Product:
    samples = _samples(options, options.latent_shape)
    original = _original(options, tensors, options.map, samples, report)
    content, model = _compile(original, options, options.latent_shape, report)
    return Product(content, model, original)


def _original(
    options: argparse.Namespace,
    tensors: dict[str, torch.Tensor] | None,
    maps: list[tuple[str, str]],
    samples: torch.Tensor,
    report: check.Report,
) -> nn.Module:
    """The user's module with its weights and its wrapping, without the parts it does not use."""
    inner = module.load(options.module, options.args)
    if tensors is not None:
        module.fill(inner, weights.rename(tensors, maps, options.drop), options.drop)
    elif not isinstance(inner, torch.jit.ScriptModule) and any(True for _ in inner.parameters()):
        if not module.has_own_weights(options.module, options.args):
            raise Refused(
                f"{options.module} begins with random weights: give the trained ones with --weights, or name a "
                "function that returns the module with them loaded"
            )
        report.add("read", f"{options.module.rpartition('/')[2]} brings its own weights")
    dropped = {
        id(part): name for name, part in _named_tensors(inner) if weights.under_any(name, options.drop)
    }
    inner = module.use_method(inner, options.method, options.module)
    wrapped = _wrap(inner, options, samples, report)
    removed = wrap.prune(wrapped, samples[:2])
    if removed:
        report.add(
            "left out",
            f"{', '.join(name.removeprefix('inner.') for name in removed)}: not used by the forward pass",
        )
    random = [dropped[id(part)] for _, part in _named_tensors(wrapped) if id(part) in dropped]
    if random:
        raise Refused(f"--drop left these without weights, but the module uses them: {', '.join(random)}")
    return wrapped


def _named_tensors(of: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*of.named_parameters(), *of.named_buffers()]


def _wrap(
    inner: nn.Module, options: argparse.Namespace, samples: torch.Tensor, report: check.Report
) -> nn.Module:
    """What the options put around the module, and single precision after it where it gives another."""
    remedy = "check --latent (a module that begins with a convolution takes --latent-shape D,1,1)"
    others = [] if options.method else module.other_ways(inner)
    if others:
        remedy += f",\n  or name what makes the images with --method; it has {', '.join(others)}"
    if options.kind != "generator":
        remedy = (
            "it is given the generator's images, as --channels and --size say.\n  A module that takes another size "
            "needs --resize H,W; one for grey images where these are in colour --grey; for colour where these are grey "
            "--colour"
        )
    after = [wrap.activation(options.activation)] if options.activation else []
    wrapped = wrap.wrap(inner, _before(options), options.select, after)
    output = check.run(wrapped, samples[:2], "the module", remedy)
    if output.dtype != torch.float32:
        report.add("precision", f"outputs of {str(output.dtype).removeprefix('torch.')} become float32")
        wrapped = wrap.wrap(inner, _before(options), options.select, [wrap.Single(), *after])
    return wrapped


def _before(options: argparse.Namespace) -> list[nn.Module]:
    parts: list[nn.Module] = []
    if options.crop:
        parts.append(wrap.Crop(*options.crop))
    if options.resize:
        parts.append(wrap.Resize(*options.resize))
    if options.grey:
        parts.append(wrap.Grey())
    if options.colour:
        parts.append(wrap.Colour())
    if options.from_range:
        parts.append(wrap.Rescale(*options.from_range))
    if options.normalize:
        half = len(options.normalize) // 2
        parts.append(wrap.Normalize(options.normalize[:half], options.normalize[half:]))
    return parts


def _compile(
    made: nn.Module, options: argparse.Namespace, latent_shape: list[int] | None, report: check.Report
) -> tuple[bytes, nn.Module]:
    for parameter in made.parameters():
        parameter.requires_grad_(options.kind == "generator")
    compiled = wrap.to_torchscript(made, _samples(options, latent_shape)[:3])
    report.add("torchscript", compiled.how)
    content = artifact.torchscript_bytes(compiled.module)
    return content, torch.jit.load(io.BytesIO(content), map_location="cpu")


def _check_generator(options: argparse.Namespace, product: Product, report: check.Report) -> dict:
    architecture = product.architecture
    latent_shape = [architecture["latent"]] if architecture else options.latent_shape
    shape = native.image_shape(architecture) if architecture else (options.channels, *options.size)
    samples = check.latents(latent_shape, options.prior, options.samples)
    output = _run(product.model, samples, report)
    check.image_shape(output, shape, report)
    check.image_range(output, options.output_range, options.clamp, report)
    check.varied(output, "the images", report)
    _compare(product, samples, samples.reshape(-1, *(options.latent_shape or latent_shape)), output, report)
    check.trainable(product.model, samples, report)
    return {
        "latent_shape": latent_shape,
        "prior": options.prior,
        "output_range": options.output_range,
        "clamp": options.clamp,
        "image_shape": shape,
    }


def _check_labeller(options: argparse.Namespace, product: Product, report: check.Report) -> dict:
    samples = _samples(options, None)
    output = _run(product.model, samples, report)
    width = check.label_shape(options.kind, output, options.classes, report)
    check.varied(output, "the outputs", report)
    _compare(product, samples, samples, output, report)
    if options.kind == "classifier":
        return {"classes": width, "output": check.class_numbers(output, report)}
    return {"dimension": width} if options.kind == "features" else {}


def _run(model: nn.Module, samples: torch.Tensor, report: check.Report) -> torch.Tensor:
    check.eval_mode(model)
    output = check.run(
        model, samples, "the artifact", "the module itself did not: it must take any batch size"
    )
    check.finite(output, report)
    return output


def _compare(
    product: Product,
    samples: torch.Tensor,
    original_samples: torch.Tensor,
    output: torch.Tensor,
    report: check.Report,
) -> None:
    check.repeatable(product.model, samples, output, report)
    check.batch_independent(product.model, samples, output, report)
    if product.original is None:
        report.warnings.append(
            "there is no module to compare with: add --module FILE.py:CLASS to check that the weights mean this"
        )
    else:
        check.equal(
            output, check.run(product.original, original_samples, "the module", "it did not before"), report
        )
