"""Outlines of a good, a middling and a bad case of the headline, registered scans of seed 0.

    python benchmarks/evidence/pictures.py --data FOLDER --work FOLDER [--profile cpu]

Takes the predictions that run.py left in the work folder, and writes docs/results_cases.png. Only shapes are shown: the
scans themselves may not be passed on.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import records
from experiment import Bench
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import binary_fill_holes
from sources import LGG
from systems import PROFILES, Run, choose, table_runs
from table import Results

from nnunet_cmc.evaluation.slices import best_plane, read_volume

COLORS = {"nnunet_cmc": "#0072B2", "nnU-Net, both sequences": "#D55E00"}


@dataclass(frozen=True)
class Shapes:
    """A panel: slices ``(h, w)`` of the head, the reference and each system's prediction; pixel height / width."""

    head: np.ndarray
    reference: np.ndarray
    predictions: Mapping[str, np.ndarray]
    aspect: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    args = parser.parse_args()
    profile = PROFILES[args.profile]
    ours = [record for record in records.load() if record["profile"] == args.profile]
    runs = table_runs("headline", profile, 1, choose(ours, profile))[:2]  # ours, and stock on both, registered
    bench = Bench(args.data, args.work, profile, LGG, runs[0].shift)
    dice = dice_of_subjects(ours, runs[0], bench.trainer(runs[0]))
    order = np.argsort(dice)[::-1]
    cases = {name: order[place] for name, place in (("best", 0), ("median", len(order) // 2), ("worst", -1))}
    figure = Figure(figsize=(8, 8.4), layout="constrained")
    axes = figure.subplots(len(cases), len(LGG.inputs))
    for row, (name, index) in zip(axes, cases.items(), strict=True):
        for axis, given in zip(row, LGG.inputs, strict=True):
            draw(axis, shapes(bench, dict(zip(COLORS, runs, strict=True)), bench.subjects.test[index], given))
            axis.set_title(given if given == "both" else f"{given} alone", fontsize="medium")
        row[0].set_ylabel(f"{name}: Dice {dice[index]:.0f} % with both")
    for label, color in COLORS.items():
        axes[0, 0].plot([], [], color=color, label=label)
    axes[0, 0].fill([], [], color="0.8", label="reference")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    file = records.FILE.with_name("results_cases.png")
    figure.savefig(file, dpi=110)
    print(f"Written: {file}")


def dice_of_subjects(found: list[dict], run: Run, trainer: str) -> list[float]:
    """Of each test subject with both sequences, in percent."""
    return Results(found).where(
        dataset=run.source.name, arrangement=run.arrangement, trainer=trainer, planner=run.planner, labels=run.labels,
        recipe=run.recipe, seed=run.seed, test_input="both",
    ).records[0]["dice_by_subject"]  # fmt: skip


def shapes(bench: Bench, runs: Mapping, subject: str, given: str) -> Shapes:
    """What a panel shows: the slice with most of the reference."""
    reference, spacing = read_volume(bench.scans / "labels" / f"{subject}.nii.gz")
    plane = best_plane([reference], LGG.classes, spacing)
    scan = read_volume(bench.scans / LGG.modalities[0] / f"{subject}.nii.gz")[0]
    head = binary_fill_holes(plane.cut(scan) > 0.15 * np.percentile(scan, 99))
    predictions = {
        name: plane.cut(read_volume(bench.work / "predictions" / run.key / given / f"{subject}.nii.gz")[0]) > 0
        for name, run in runs.items()
    }
    return Shapes(head, plane.cut(reference) > 0, predictions, plane.aspect)


def draw(axis: Axes, shown: Shapes) -> None:
    """The head's outline, the reference filled, and an outline for each prediction."""
    axis.imshow(np.where(shown.reference, 0.8, 1.0), cmap="gray", vmin=0, vmax=1, aspect=shown.aspect)
    for mask, style in ((shown.head, {"colors": "0.5", "linewidths": 0.8}),
                        *((shown.predictions[name], {"colors": color, "linewidths": 1.6})
                          for name, color in COLORS.items())):  # fmt: skip
        if mask.any() and not mask.all():
            axis.contour(mask, [0.5], **style)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
