"""The one error of the exporter: a model that cannot become an artifact, and what to do about it."""


class Refused(Exception):
    """The message names the object, what was found, and the remedy. Nothing has been written."""


def gist(error: BaseException) -> str:
    """One line of somebody else's exception, for quoting inside one of ours."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # TorchScript's interpreter tells the cause last, after the place.
    return lines[-1] if "TorchScript interpreter" in lines[0] else f"{type(error).__name__}: {lines[0]}"


def listing(tensors: dict, limit: int = 20) -> str:
    """One indented line for each tensor with its shape."""
    lines = [f"    {name} {list(tensor.shape)}" for name, tensor in tensors.items()]
    if len(lines) > limit:
        lines[limit:] = [f"    and {len(lines) - limit} more"]
    return "\n".join(lines)
