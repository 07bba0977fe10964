"""README's walk with commands, on phantoms: converted, split, planned and preprocessed."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_cmc.dataset_conversion import phantom

DATASET, NAME = 998, "Dataset998_Walk"
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
ON_THE_CPU = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def walk_to_training(
    run_command: Callable, root: Path, layout: str, spacing: Sequence[float] | None, planner: str, **subjects: int
) -> dict[str, str]:
    """Return the environment of the commands that go on; half of the labelled ``subjects`` validate."""
    environment = {**os.environ, **ON_THE_CPU, **{variable: str(root / variable) for variable in VARIABLES}}
    for variable in VARIABLES:
        (root / variable).mkdir()
    files = phantom.generate(root / "scans", layout=layout, spacing=spacing, seed=0, **subjects)
    arguments = []
    for option, given in files.items():
        values = [f"{name}={value}" for name, value in given.items()] if isinstance(given, dict) else [given]
        arguments += [f"--{option.replace('_', '-')}", *values]
    for command in (
        ("nnunet_cmc", "convert", "folders", "-d", DATASET, "--name", "Walk", *arguments),
        ("nnunet_cmc", "split", "-d", DATASET, "--labeled", "1.0", "--val", "0.5"),
        ("nnUNetv2_plan_and_preprocess", "-d", DATASET, "-pl", planner, "-fpe", "CMCFingerprintExtractor",
         "-c", "3d_fullres", "-npfp", 1, "-np", 1),
    ):  # fmt: skip
        run_command(*command, environment=environment)
    return environment
