"""README's walk with its own commands, on phantoms: converted, split, planned and preprocessed."""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from source_files import ROOT

from nnunet_cmc.dataset_conversion import phantom

DATASET, NAME = 998, "Dataset998_Walk"
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
ON_THE_CPU = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def readme_command(start: str, options: Mapping[str, Sequence]) -> list[str]:
    """The walk's command that starts so, on our dataset, with these values of its options, and without ``None``'s."""
    _, _, section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Your own scans\n")
    section = section.partition("\n## ")[0].replace("\\\n", " ")
    (line,) = [line for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) for line in block.splitlines()
               if line.startswith(start)]  # fmt: skip
    groups: list[list[str]] = [[]]
    for word in shlex.split(line):
        if word.startswith("-"):
            groups.append([])
        groups[-1].append(str(DATASET) if word == "502" else word)
    assert {*options} <= {group[0] for group in groups}, line
    given = [group if group[0] not in options else [group[0], *map(str, options[group[0]] or [])] for group in groups]
    return [word for group in given if options.get(group[0], True) is not None for word in group]


def walk_to_training(
    run_command: Callable, root: Path, layout: str, spacing: Sequence[float] | None, planner: str, **subjects: int
) -> dict[str, str]:
    """Return the environment of the commands that go on; half of the labelled ``subjects`` validate."""
    environment = {**os.environ, **ON_THE_CPU, **{variable: str(root / variable) for variable in VARIABLES}}
    for variable in VARIABLES:
        (root / variable).mkdir()
    files = phantom.generate(root / "scans", layout=layout, spacing=spacing, seed=0, **subjects)
    sources: dict[str, Sequence | None] = {"--name": ["Walk"], "--test-images": None, "--test-labels": None}
    for option, given in files.items():
        values = [f"{name}={value}" for name, value in given.items()] if isinstance(given, dict) else [given]
        sources[f"--{option.replace('_', '-')}"] = values
    for command in (
        readme_command("nnunet_cmc convert folders", sources),
        readme_command("nnunet_cmc split", {"--val": [0.5]}),
        [*readme_command("nnUNetv2_plan_and_preprocess", {"-pl": [planner]}), "-npfp", "1", "-np", "1"],
    ):
        run_command(*command, environment=environment)
    return environment
