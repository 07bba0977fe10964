"""Names of modalities, as all sources of scans give them."""

from collections.abc import Iterable


def require_unlike(modalities: Iterable[str]) -> None:
    """Raise a ValueError if two of the names differ only in capitals, and so may be meant to be one."""
    names: dict[str, str] = {}
    for name in modalities:
        if (first := names.setdefault(name.casefold(), name)) != name:
            raise ValueError(
                f"The modalities {first} and {name} differ only in capitals: write the name of one modality always in "
                "the same way, and give others names that differ otherwise."
            )
