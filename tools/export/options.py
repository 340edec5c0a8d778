"""What may be asked for on the command line, and which of it goes together. Imports nothing that may be missing."""

import argparse
import re
from pathlib import Path

FORMATS = {".pt": "torchscript", ".safetensors": "safetensors"}
LABELLERS = ["classifier", "scorer", "features"]


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _pair(text: str) -> tuple[float, float]:
    low, high = _numbers(text)
    if not low < high:
        raise ValueError
    return low, high


def _shape(text: str) -> list[int]:
    shape = [int(part) for part in text.split(",")]
    if min(shape) < 1:
        raise ValueError
    return shape


def _size(text: str) -> tuple[int, int]:
    shape = _shape(text)
    height, width = shape * 2 if len(shape) == 1 else shape
    return height, width


def _box(text: str) -> list[int]:
    box = [int(part) for part in text.split(",")]
    if len(box) != 4 or min(box) < 0 or min(box[2:]) < 1:
        raise ValueError
    return box


def _prior(text: str) -> str | tuple[float, float]:
    return text if text == "normal" else _pair(text.removeprefix("uniform:"))


def _moments(text: str) -> list[float]:
    values = _numbers(text)
    half = len(values) // 2
    if len(values) % 2 or not values or min(values[half:]) <= 0:
        raise ValueError
    return values


def _renaming(text: str) -> tuple[str, str]:
    old, new = text.split("=")
    return old, new


def _positive(text: str) -> tuple[str, float]:
    rule, number = text.split(":")
    if rule not in ("above", "below", "top"):
        raise ValueError
    return rule, float(number)


def _count(text: str) -> int:
    count = int(text)
    if count < 8:
        raise ValueError
    return count


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="tools/export",
        description="Turns a PyTorch model into an artifact that Lethe accepts, and checks it.",
    )
    made.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the artifact, .pt or .safetensors; its sidecar goes beside it",
    )
    made.add_argument(
        "--force", action="store_true", help="replace what is at --out even when tools/export did not write it"
    )
    made.add_argument("--kind", choices=["generator", "classifier", "scorer", "features"], required=True)
    made.add_argument("--format", choices=list(FORMATS.values()), help="default: by the suffix of --out")
    made.add_argument("--source", help="where the weights come from and their licence, for the sidecar")
    made.add_argument(
        "--samples", type=_count, default=64, help="samples to check on, at least 8; default 64"
    )

    group = made.add_argument_group("what to read")
    group.add_argument(
        "--module",
        metavar="FILE.py:CLASS",
        help="a class, or a function that returns a module; or a TorchScript archive",
    )
    group.add_argument("--args", metavar="JSON", help="its arguments, an object or a list")
    group.add_argument(
        "--weights",
        type=Path,
        help="a state dict, a checkpoint or a pickled module of torch.save, or .safetensors; nothing in it is run",
    )
    group.add_argument(
        "--entry", help="the state dict's key, in a checkpoint of several things, as netG or state.G"
    )
    group.add_argument(
        "--drop", action="append", default=[], metavar="PREFIX", help="leave out the tensors under this name"
    )
    group.add_argument(
        "--map",
        action="append",
        default=[],
        type=_renaming,
        metavar="OLD=NEW",
        help="rename tensors under a name",
    )
    group.add_argument("--method", help="the method or part to use instead of forward, as decode")

    group = made.add_argument_group("images")
    group.add_argument("--channels", type=int)
    group.add_argument(
        "--size",
        type=_size,
        metavar="S|H,W",
        help="of the generator's images; for a labeller, of those Lethe gives it",
    )

    group = made.add_argument_group("generators")
    group.add_argument("--latent", type=int, metavar="D", help="latents are [N, D]")
    group.add_argument("--latent-shape", type=_shape, metavar="D,..", help="latents are [N, D, ..]")
    group.add_argument("--prior", type=_prior, default="normal", metavar="normal|uniform:A,B")
    group.add_argument("--output-range", type=_pair, metavar="LO,HI", help="of the images, as 0,1 or -1,1")
    group.add_argument("--clamp", action="store_true", help="cut off images that go beyond --output-range")
    group.add_argument(
        "--architecture", choices=["dcgan", "mlp_decoder", "conv_decoder"], help="a native one"
    )
    group.add_argument(
        "--hidden-activation", choices=["relu", "tanh", "leaky_relu"], default="relu", help="of mlp_decoder"
    )

    group = made.add_argument_group(
        "classifiers, scorers, features (before the module; Lethe gives images in [0, 1])"
    )
    group.add_argument(
        "--crop",
        type=_box,
        metavar="TOP,LEFT,H,W",
        help="the part of the generator's images that the module looks at, as a face in a portrait",
    )
    group.add_argument(
        "--resize", type=_size, metavar="H,W", help="to the size that the module takes; bilinear"
    )
    group.add_argument(
        "--grey", action="store_true", help="the module takes grey images, the generator's are in colour"
    )
    group.add_argument(
        "--colour", action="store_true", help="the module takes colour images, the generator's are grey"
    )
    group.add_argument("--from-range", type=_pair, metavar="LO,HI", help="the range that the module expects")
    group.add_argument(
        "--normalize",
        type=_moments,
        metavar="MEAN..,STD..",
        help="the means of the channels, then their deviations",
    )
    group.add_argument("--classes", type=int, help="how many outputs a classifier must have")

    group = made.add_argument_group("after the module")
    group.add_argument("--select", metavar="KEY|INDEX", help="which one of several outputs")
    group.add_argument("--activation", choices=["sigmoid", "tanh"])

    group = made.add_argument_group(
        "the job (its lines for this model are printed; --job adds them to a file)"
    )
    group.add_argument(
        "--job", type=Path, metavar="FILE.yaml", help="made when it is not there; never replaced"
    )
    group.add_argument("--feature", metavar="NAME", help="what a classifier or scorer recognises")
    group.add_argument(
        "--judge", action="store_true", help="it counts what is left in the end, instead of leading the removal"
    )
    group.add_argument(
        "--class", type=int, dest="feature_class", metavar="K", help="the class that is the feature, from 0"
    )
    group.add_argument(
        "--positive",
        type=_positive,
        metavar="above:X|below:X|top:SHARE",
        help="which scores mean the feature",
    )
    return made


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, complete and without contradictions. Ends the process with code 2 otherwise."""
    made = parser()
    options = made.parse_args(_join_negative(arguments))
    options.format = options.format or FORMATS.get(options.out.suffix)
    if options.format is None or FORMATS.get(options.out.suffix) != options.format:
        made.error(
            f"--out must end in .pt for torchscript, in .safetensors for safetensors; it is {options.out.name}"
        )
    if options.latent is not None:
        if options.latent_shape:
            made.error("--latent and --latent-shape exclude each other")
        options.latent_shape = [options.latent]
    _check_source(made, options)
    _check_kind(made, options)
    return options


def _join_negative(arguments: list[str]) -> list[str]:
    """`--output-range -1,1` as `--output-range=-1,1`: argparse would take the value for an option."""
    joined: list[str] = []
    for argument in arguments:
        if re.match(r"-[\d.]", argument) and joined and joined[-1].startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _check_source(made: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.architecture and options.kind != "generator":
        made.error("--architecture is for generators")
    if options.architecture and not options.weights:
        made.error("--architecture needs --weights")
    if options.architecture and options.clamp:
        made.error("--clamp: a native architecture ends in sigmoid or tanh and cannot leave its range")
    if not options.architecture and options.format == "safetensors":
        made.error("safetensors holds weights only: add --architecture, or use --format torchscript")
    if not options.architecture and not options.module:
        made.error(
            "add the class that the weights belong to, --module FILE.py:CLASS (a TorchScript archive: --module "
            "FILE.pt), or --architecture for a native one"
        )
    if options.module and not options.module.rpartition(":")[0].endswith(".py") and options.weights:
        made.error(
            "--weights needs --module FILE.py:CLASS; a TorchScript archive given as --module has its own weights"
        )


def _check_kind(made: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    kinds = {
        "--crop": (options.crop, LABELLERS),
        "--resize": (options.resize, LABELLERS),
        "--grey": (options.grey, LABELLERS),
        "--colour": (options.colour, LABELLERS),
        "--from-range": (options.from_range, LABELLERS),
        "--normalize": (options.normalize, LABELLERS),
        "--latent": (options.latent_shape, ["generator"]),
        "--output-range": (options.output_range, ["generator"]),
        "--clamp": (options.clamp, ["generator"]),
        "--classes": (options.classes is not None, ["classifier"]),
        "--class": (options.feature_class is not None, ["classifier"]),
        "--feature": (options.feature, ["classifier", "scorer"]),
        "--judge": (options.judge, ["classifier", "scorer"]),
        "--positive": (options.positive, ["scorer"]),
    }
    wrong = [name for name, (given, allowed) in kinds.items() if given and options.kind not in allowed]
    if wrong:
        made.error(f"{', '.join(wrong)}: not for a {options.kind}")
    if options.grey and options.channels != 3:
        made.error("--grey makes grey images of colour ones: the generator's have --channels 3 then")
    if options.colour and options.channels != 1:
        made.error("--colour makes colour images of grey ones: the generator's have --channels 1 then")
    _check_needed(made, options)
    if options.crop:
        top, left, height, width = options.crop
        if top + height > options.size[0] or left + width > options.size[1]:
            made.error(f"--crop goes beyond images of {options.size[0]}x{options.size[1]}")


def _check_needed(made: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    needed = {"--output-range": options.output_range} if options.kind == "generator" else {}
    if not options.architecture:
        needed |= {"--channels": options.channels, "--size": options.size}
        needed |= {"--latent": options.latent_shape} if options.kind == "generator" else {}
    if options.judge and options.feature:
        made.error("--feature: the job's feature has its name already; a judge needs none")
    if options.job and options.kind in ("classifier", "scorer") and not options.judge:
        needed["--feature"] = options.feature
    if options.job and options.kind == "scorer":
        needed["--positive"] = options.positive
    missing = [name for name, value in needed.items() if not value]
    if missing:
        why = ", to add it to a job" if missing[0] in ("--feature", "--positive") else ""
        made.error(f"a {options.kind} needs {', '.join(missing)}{why}")
