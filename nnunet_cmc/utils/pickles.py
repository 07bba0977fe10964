"""Pickle files that may come from anywhere, and what each kind of them may name: loading calls nothing else.

Plans and ``dataset.json``, whose names nnU-Net looks up, are checked in :mod:`nnunet_cmc.inference.resolved_names`.
"""

import argparse
import pickle
from collections.abc import Collection
from typing import IO, Any

import numpy as np

NUMPY = {  # what numpy's arrays, numbers and types are made by, under the two names that numpy has had for its core
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    ),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
IN_PROPERTIES = {*NUMPY, ("collections", "OrderedDict")}  # of a preprocessed case
IN_POSTPROCESSING = {
    *NUMPY,
    ("nnunetv2.postprocessing.remove_connected_components", "remove_all_but_largest_component_from_segmentation"),
}
# Beside tensors and plain values, as torch.serialization.safe_globals takes it: the arguments of a training script, and
# numpy's numbers, which nnU-Net's logger leaves in our own checkpoints.
_number = np.float64(0).__reduce__()[0]
IN_CHECKPOINTS: list[Any] = [
    argparse.Namespace,
    *((_number, f"{module}.{name}") for module, name in NUMPY if name == "scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
]


class RestrictedUnpickler(pickle.Unpickler):
    """Load a pickle. ValueError: it names anything but ``allowed``, pairs of a module and a name."""

    def __init__(self, file: IO[bytes], allowed: Collection[tuple[str, str]]):
        super().__init__(file)
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Find a class as pickle does."""
        if (module, name) not in self.allowed:
            raise ValueError(f"it would call {module}.{name}")
        return super().find_class(module, name)
