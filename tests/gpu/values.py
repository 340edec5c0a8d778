"""Whether the device computes what the cpu computes, and what PyTorch computes from the same files."""

import json
import subprocess

from machine import BIN, CPU, DEVICE, MODELS, SCRATCH, dispatch, executor, require, say

# How far two devices may differ in f32 without TF32: sums in another order, some 1e-6 of each number per layer.
IMAGES = 5e-5
SCORES = 1e-3
FIRST_LOSS = 1e-5
LATER_LOSSES = 5e-3
GRADIENTS = 2e-3
# Adam moves every weight by about lr at first, whatever its gradient: where that is nearly 0, its sign is chance.
WEIGHTS = 0.1
# An edit ends at a step whose score is low enough; a score that differs in the last digits can end it one look sooner.
EDITS_ALIKE = 0.9
STEPS = 20


def libraries() -> None:
    """Every program finds its libraries here."""
    names = ["lethe", "lethe-executor"]
    files = [BIN / name for name in [*names, "lethe-gang-tests"]]
    if not CPU:
        files.append(BIN / "liblethe_nccl.so")
    missing = {}
    for file in files:
        require(file.exists(), f"{file} is not there")
        text = subprocess.run(["ldd", file], capture_output=True, text=True, check=False)
        lines = (text.stdout + text.stderr).splitlines()
        missing[file.name] = [line.strip() for line in lines if "not found" in line or "not a dynamic" in line]
    say(missing={name: lines for name, lines in missing.items() if lines})
    require(not any(missing.values()), f"libraries are missing: {missing}")
    for name in names:
        done = subprocess.run([BIN / name, "--version"], capture_output=True, text=True, check=False)
        require(done.returncode == 0, f"{name} --version: {done.returncode} {done.stderr.strip()}")


def difference(one, other) -> float:
    return (one.double() - other.double()).abs().max().item() if one.numel() else 0.0


def relative(one, other) -> float:
    return ((one.double() - other.double()).norm() / other.double().norm().clamp_min(1e-30)).item()


def compare() -> None:
    import torch
    from models import digits, locate, spec
    from safetensors.torch import load_file

    generator, scores, architecture, feature = digits()
    lr = 5e-4
    problems = []

    def check(name: str, value: float, limit: float) -> None:
        say(check=name, difference=value, limit=limit)
        if not value <= limit:
            problems.append(f"{name}: {value:.3g} > {limit:.3g}")

    original = load_file(MODELS / "dcgan.safetensors")
    for selection, method in [("projection", "projection"), ("classifier", "line")]:
        target = locate(generator, scores, architecture["latent"], 0.0, SCRATCH / f"{method}.safetensors", method)
        job = SCRATCH / f"{selection}.json"
        unlearn = {"steps": STEPS, "global_batch": 64, "micro_batches": 2, "lr": lr, "alpha": 6, "squares": 0, "contrast": 0, "anchor": 0}
        job.write_text(
            json.dumps(spec(MODELS / "dcgan.safetensors", feature, architecture, direction={"selection": selection}, unlearn=unlearn))
        )
        found = {}
        # On a cpu a second thread adds up in another order, as another device does.
        for name, device, threads, extra in [("cpu", "cpu", 1, []), ("device", DEVICE, 2, ["--looks-per-sync", 4])]:
            file = SCRATCH / f"{selection}-{name}.safetensors"
            executor("values", job, "--target", target, "--out", file, "--steps", STEPS, *extra, device=device, threads=threads)
            found[name] = load_file(file)
        cpu, device = found["cpu"], found["device"]
        require(set(cpu) == set(device), f"other tensors: {set(cpu) ^ set(device)}")
        require(torch.equal(cpu["latents"], device["latents"]), "latents are not identical")
        # Else the loss of latents that are not edited is noise, and its gradient not 0.
        require(torch.equal(device["copy.images"], device["images"]), "an untrained copy does not give the original's bits")
        check(f"{selection}: images", difference(device["images"], cpu["images"]), IMAGES)
        check(f"{selection}: scores", difference(device["scores"], cpu["scores"]), SCORES * cpu["scores"].abs().max().item())
        # What PyTorch makes of the same files.
        with torch.no_grad():
            images = generator(device["latents"])
            check(f"{selection}: images beside PyTorch", difference(device["images"], images), IMAGES)
            check(f"{selection}: scores beside PyTorch", difference(device["scores"], scores(images)), SCORES * cpu["scores"].abs().max().item())

        places = cpu["edited.places"]
        require(places.numel() > 0, "nothing was edited: nothing was compared")
        require(torch.equal(places, device["edited.places"]), f"other latents are edited: {places} {device['edited.places']}")
        apart = (device["edited.latents"] - cpu["edited.latents"]).flatten(1).norm(dim=1)
        alike = (apart[places] < 1e-3).double().mean().item()
        say(check=f"{selection}: edits", edited=places.numel(), alike=alike, furthest=apart.max().item(), limit=EDITS_ALIKE)
        if alike < (1.0 if selection == "projection" else EDITS_ALIKE) or apart.max().item() > 0.25:
            problems.append(f"{selection}: edits differ: {alike:.2f} alike, furthest {apart.max().item():.3g}")
        # The rest follows from the edits of a pool; where one of those differs, it may too.
        slack = 1 if selection == "projection" else 50
        losses, expected = device["losses"], cpu["losses"]
        check(f"{selection}: loss of the first step", ((losses[0] - expected[0]) / expected[0]).abs().item(), FIRST_LOSS * slack)
        check(f"{selection}: losses", ((losses - expected) / expected).abs().max().item(), LATER_LOSSES * slack)
        gradients = [name for name in cpu if name.startswith("gradient.")]
        require(len(gradients) > 3, "there are no gradients")
        worst = max(relative(device[name], cpu[name]) for name in gradients)
        check(f"{selection}: gradients of the first step", worst, GRADIENTS * slack)
        weights = [name for name in gradients if f"weight.{name[9:]}" in cpu]
        moved = [(f"weight.{name[9:]}", name[9:]) for name in weights if name[9:] in original]
        require(moved, "no weight is to be found in the original")
        change = lambda values: torch.cat([(values[key] - original[name]).flatten() for key, name in moved])  # noqa: E731
        require(change(cpu).abs().max().item() > lr, "training moved nothing")
        check(f"{selection}: change of the weights after {STEPS} steps", relative(change(device), change(cpu)), WEIGHTS)
    require(not problems, "; ".join(problems))


if __name__ == "__main__":
    dispatch({"libraries": libraries, "compare": compare})
