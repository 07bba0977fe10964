"""Names of modalities, as all sources of scans give them."""

import re
from collections.abc import Iterable


def require_usable(modalities: Iterable[str]) -> None:
    """Raise a ValueError if a name is impossible, or two differ only in capitals, and so may be meant to be one."""
    names: dict[str, str] = {}
    for modality in modalities:
        if not re.fullmatch(r"[\w.+-]+", modality):
            raise ValueError(
                f"A modality's name may have letters, digits and _ . + - only, but one is {modality!r}: rename it."
            )
        if (first := names.setdefault(modality.casefold(), modality)) != modality:
            raise ValueError(
                f"The modalities {first} and {modality} differ only in capitals: write the name of one modality "
                "always in the same way, and give others names that differ otherwise."
            )
