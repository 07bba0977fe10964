"""The versions of nnU-Net that this package works with."""

from importlib import metadata

SUPPORTED = ((2, 8), (2, 9))  # nnunetv2 from the first version to below the second, as pyproject.toml says


def unsupported_nnunet() -> str | None:
    """Describe the nnunetv2 that is installed, if this package does not work with it."""
    try:
        installed = metadata.version("nnunetv2")
    except metadata.PackageNotFoundError:  # a folder on PYTHONPATH, say: nobody can tell
        return None
    parts = [int("".join(filter(str.isdigit, part)) or 0) for part in installed.split(".")[:2]]
    low, high = SUPPORTED
    if low <= tuple(parts) < high:
        return None
    wanted = f">={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
    return f'nnunet_cmc works with nnunetv2{wanted}, but {installed} is installed: pip install "nnunetv2{wanted}".'


def require_supported_nnunet() -> None:
    """Raise RuntimeError if :func:`unsupported_nnunet`."""
    if problem := unsupported_nnunet():
        raise RuntimeError(problem)
