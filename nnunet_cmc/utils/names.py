"""Names of modalities."""

from collections.abc import Sequence


def numbered_if_equal(names: Sequence[str]) -> list[str]:
    """Append their positions to names that are there more than once: CT, MR, CT are CT 0, MR, CT 2."""
    return [f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
