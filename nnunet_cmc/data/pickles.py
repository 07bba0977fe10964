"""Pickle files that may come from anywhere: loading one calls nothing but what is expected there."""

import pickle
from collections.abc import Collection
from typing import IO, Any

NUMPY = {  # what numpy's arrays, numbers and types are made by, under the two names that numpy has had for its core
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    ),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class HarmlessUnpickler(pickle.Unpickler):
    """Loads a pickle if it names nothing but ``harmless``, pairs of a module and a name; else a ValueError."""

    def __init__(self, file: IO[bytes], harmless: Collection[tuple[str, str]]):
        super().__init__(file)
        self.harmless = harmless

    def find_class(self, module: str, name: str) -> Any:
        """As pickle's."""
        if (module, name) not in self.harmless:
            raise ValueError(f"it would call {module}.{name}")
        return super().find_class(module, name)
