"""Make docs/results.md and its figures of docs/results.json.

    python benchmarks/evidence/report.py

The text around the tables is in results_text.md, which says where each table goes.
"""

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import figures
import numpy as np
import records
from arrangements import ARRANGEMENTS
from intervals import Difference, paired_difference
from sources import AMOS, LGG
from systems import ABLATIONS, LADDER, PROFILES, STOCK_PLANNERS
from table import Results, markdown, mean_and_spread

HERE = Path(__file__).resolve().parent
HEADER = ("FLAIR only", "T1post only", "both", "mean")
TIME = "training (min)"
# The systems of the page, under the names that they had. Trainers and planners that are gone are in the history: most
# up to commit ae9c352, CMCTrainerTeacher up to b1c72bc, CMCPlannerResEnc up to 2fbd702.
RESIDUAL = "CMCPlannerResEnc"
# What was tried when the headline of CMCTrainerPaper missed its target, all on the residual encoder,
REMEDIES = (
    "CMCTrainerSkipFusion",
    "CMCTrainerFusedAndSplit",
    "CMCTrainerPaper_noModalityDropout",
    "CMCTrainerDeepSupervision",
    "CMCTrainerSkipFusionDeepSupervision",
)
# likewise on unpaired scans, where the unlabelled scans hardly entered the gradient,
UNPAIRED_REMEDIES = ("CMCTrainerMeanTeacher", "CMCTrainerCorrectedSchedules", "CMCTrainerPaper_noCAC")
# and on both later.
LATER = ("CMCTrainerPlus", "CMCTrainerTeacher", "CMCTrainer")
CANDIDATES = (
    *((trainer, "CMCPlannerTiny") for trainer in (
        "CMCTrainerPaper", "CMCTrainerCorrectedSchedules", "CMCTrainerOneSided", "MeanTeacherTrainer",
        "CMCTrainerMeanTeacher")),
    *((trainer, RESIDUAL) for trainer in ("CMCTrainerPaper", "CMCTrainerMeanTeacher", *REMEDIES, "CMCTrainer")),
)  # fmt: skip
GPU_CANDIDATES = ("CMCTrainerSkipFusionDeepSupervision", *LATER[:2])
TRIED = ("trainer", *(f"validation: {h}" for h in HEADER), *(f"test: {h}" for h in HEADER))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.FILE)
    parser.add_argument("--output", type=Path, default=records.FILE.with_name("results.md"))
    args = parser.parse_args()
    every = Results(records.load(args.results))
    results = every.where(dataset=LGG.name)
    figures.save_all(results, args.output.parent)
    longer, gpu = (Results(records.load(args.results.with_name(PROFILES[n].results))) for n in ("longer", "short"))
    gpu = gpu.complete()
    for name, found in (("longer", longer), ("gpu", gpu)):
        figures.headline(found.where(selected=True)).savefig(args.output.parent / f"results_{name}.png", dpi=150)
    parts = {
        **{part.__name__: partial(part, results) for part in PARTS},
        "amos": partial(amos, every.where(dataset=AMOS.name)),
        "gpu_candidates": partial(gpu_candidates, gpu),
        "gpu_provenance": partial(provenance, gpu),
        "longer_provenance": partial(provenance, longer),
    }
    for name, found in (("longer", longer), ("gpu", gpu)):
        parts |= {f"{name}_{part.__name__}": partial(part, found) for part in (headline, comparison, missing)}
    text = (HERE / "results_text.md").read_text()
    args.output.write_text(re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]](), text))
    print(f"Written: {args.output}")


def candidates(results: Results) -> str:
    """Validation Dice of what the headline's system of ours was chosen from."""
    at = results.where(arrangement="registered", labels=0.1, seed=0, stock=False)
    rows = [
        [name, *_cells(system, "validation_dice")]
        for name, system in at.systems().items()
        for first in [system.records[0]]
        if (first["trainer"].removesuffix("_cmcbudget"), first["planner"]) in CANDIDATES
    ]
    return markdown(("candidate", *HEADER), rows)


def finalists(results: Results) -> str:
    """Validation Dice of the systems of ours that have several seeds."""
    seeds = range(PROFILES["cpu"].choosing_seeds)
    at = results.where(arrangement="registered", labels=0.1, stock=False)
    at = Results([record for record in at.records if record["seed"] in seeds])
    rows = [
        [name, *(system.where(seed=seed).mean_of_inputs("validation_dice") for seed in seeds),
         system.mean_of_inputs("validation_dice")]
        for name, system in at.systems().items()
        if set(seeds) <= set(system.seeds)
    ]  # fmt: skip
    return markdown(("finalist", *(f"seed {seed}" for seed in seeds), "mean"), rows)


def remedies(results: Results) -> str:
    """What was tried to reach the target, seed 0 on registered scans, beside what it was tried on."""
    return _tried(results.where(arrangement="registered"), (*REMEDIES, *LATER))


def unpaired_remedies(results: Results) -> str:
    """The same on unpaired scans."""
    return _tried(results.where(arrangement="unpaired"), (*UNPAIRED_REMEDIES, *LATER))


def _tried(results: Results, trainers: Sequence[str]) -> str:
    at = results.where(labels=0.1, planner=RESIDUAL)
    return markdown(TRIED, _rows_of(at, ("CMCTrainerPaper", *trainers)))


def _by_arrangement(results: Results, arrangements: Sequence[str], trainers: Sequence[str]) -> str:
    rows = [
        [arrangement, *row]
        for arrangement in arrangements
        for row in _rows_of(results.where(arrangement=arrangement), trainers)
    ]
    return markdown(("arrangement", *TRIED), rows)


def _rows_of(results: Results, trainers: Sequence[str]) -> list[list[str]]:
    """Of those that were run with seed 0."""
    systems = {trainer: results.where(seed=0, trainer=f"{trainer}_cmcbudget") for trainer in trainers}
    return [
        [trainer, *_cells(system, "validation_dice"), *_cells(system, "dice")]
        for trainer, system in systems.items()
        if system.records
    ]


def gpu_candidates(results: Results) -> str:
    """What the GPU's headline was chosen from, on the scans that chose, seed 0."""
    return _by_arrangement(results, PROFILES["short"].choosing, GPU_CANDIDATES)


def headline(results: Results, metric: str = "dice") -> str:
    """Every system's mean over seeds and its spread between them."""
    rows = []
    for arrangement in ARRANGEMENTS:
        at = results.where(arrangement=arrangement, labels=0.1, recipe="", selected=True)
        for name, system in at.systems().items():
            rows.append([arrangement, name, str(len(system.seeds)), *_cells(system, metric), _minutes(system)])
    return markdown(("arrangement", "system", "seeds", *HEADER, TIME), rows)


def headline_assd(results: Results) -> str:
    return headline(results, "assd")


def comparison(results: Results, values: str = "dice_by_subject") -> str:
    """Ours against the better stock model of each input, paired by subject."""
    rows = []
    for arrangement in ARRANGEMENTS:
        differences = against_stock(results, arrangement, values)
        rows += [[arrangement, given, str(difference)] for given, difference in differences.items()]
    return markdown(("arrangement", "input", "difference of Dice [95 % interval]; by seed"), rows)


def comparison_transductive(results: Results) -> str:
    return comparison(results, "transductive_by_subject")


def against_stock(results: Results, arrangement: str, values: str = "dice_by_subject") -> dict[str, Difference]:
    """For each input and their mean; the better stock model is the one with the higher mean over seeds."""
    at = results.where(arrangement=arrangement, labels=0.1, recipe="", selected=True)
    ours, theirs = [], []
    for given in LGG.inputs:
        of_ours = at.where(test_input=given, stock=False).values(values)
        stock = at.better_stock(given, values)
        seeds = [seed for seed in sorted(set(of_ours) & set(stock)) if of_ours[seed]]
        if not seeds:
            return {}
        ours.append([of_ours[seed] for seed in seeds])
        theirs.append([stock[seed] for seed in seeds])
    pairs = {given: paired_difference(a, b) for given, a, b in zip(LGG.inputs, ours, theirs, strict=True)}
    return {**pairs, "mean": paired_difference(np.mean(ours, 0), np.mean(theirs, 0))}


def missing(results: Results) -> str:
    """What a system loses when a sequence is missing."""
    rows = []
    for arrangement in ARRANGEMENTS:
        at = results.where(arrangement=arrangement, labels=0.1, recipe="", selected=True, channels="both")
        for name, system in at.systems().items():
            dice = {given: system.mean(given, "dice") for given in LGG.inputs}
            if None not in dice.values():
                lost = [f"{dice['both'] - dice[given]:.1f}" for given in ("T1post", "FLAIR")]
                rows.append([arrangement, name, *lost])
    return markdown(("arrangement", "system", "FLAIR is missing", "T1post is missing"), rows)


def gap(results: Results) -> str:
    """How much of the way from stock at 10 % to stock at all labels ours goes at 10 %, seed 0, registered."""
    at = results.where(arrangement="registered", recipe="", seed=0)
    few, all_labels = at.where(labels=0.1, selected=True), at.where(labels=1.0, planner=STOCK_PLANNERS[0])
    rows = []
    for given in LGG.inputs:
        ours = few.where(stock=False).mean(given, "dice")
        low, high = few.best_stock_dice(given), all_labels.best_stock_dice(given)
        if None not in (ours, low, high):
            share = f"{100 * (ours - low) / (high - low):.0f} %" if high > low else "no gap"
            rows.append([given, f"{low:.1f}", f"{ours:.1f}", f"{high:.1f}", share])
    return markdown(("input", "stock, 10 %", "ours, 10 %", "stock, all labels", "of the gap"), rows)


def ladder(results: Results) -> str:
    at = results.where(arrangement="registered", labels=0.1, recipe="", seed=0, stock=False)
    rows = []
    for planner in at.values_of("planner"):
        for trainer in LADDER:
            system = at.where(planner=planner, trainer=f"{trainer}_cmcbudget")
            if system.records:
                rows.append([planner, trainer, *_cells(system, "dice"), _minutes(system)])
    return markdown(("planner", "trainer", *HEADER, TIME), rows)


def ablations(results: Results) -> str:
    """The headline's trainer without its terms on unlabelled scans, seed 0."""
    at = results.where(labels=0.1, planner=RESIDUAL)
    return _by_arrangement(at, ("registered", "unpaired"), ("CMCTrainer", *ABLATIONS))


def others(results: Results) -> str:
    at = results.where(arrangement="registered", labels=0.1, seed=0)
    rows = [
        [name, *_cells(system, "dice"), *_cells(system, "validation_dice")[3:], _minutes(system)]
        for name, system in at.systems().items()
    ]
    return markdown(("system", *HEADER, "mean of validation", TIME), rows)


def misalignment(results: Results) -> str:
    at = results.where(arrangement="misaligned", labels=0.1, recipe="", seed=0, channels="both")
    trainers = _of_headline(at)
    rows = [
        [f"{shift:g}", name, *_cells(system, "dice"), _minutes(system)]
        for shift in at.values_of("shift_mm")
        for name, system in at.where(shift_mm=shift).systems().items()
        if system.records[0]["trainer"] in trainers
    ]
    return markdown(("shift (mm)", "system", *HEADER, TIME), rows)


def labels(results: Results) -> str:
    at = results.where(arrangement="registered", recipe="", seed=0)
    trainers = _of_headline(at)
    rows = [
        [f"{100 * share:g} %", name, *_cells(system, "dice"), _minutes(system)]
        for share in at.values_of("labels")
        for name, system in at.where(labels=share).systems().items()
        if system.records[0]["trainer"] in trainers
    ]
    return markdown(("labels", "system", *HEADER, TIME), rows)


def amos(results: Results) -> str:
    rows = [
        [arrangement, name, *means, _minutes(system)]
        for arrangement in ARRANGEMENTS
        for name, system in results.where(arrangement=arrangement).systems().items()
        for means in [[mean_and_spread(system.where(test_input=given), "dice") for given in AMOS.inputs]]
    ]
    return markdown(("arrangement", "system", "CT only", "MR only", "both", TIME), rows)


def provenance(results: Results) -> str:
    rows = [
        [profile, device, str(len(at.records)), f"{at.records[0]['iterations']}", _range(at, "seconds"),
         ", ".join(f"`{commit}`" for commit in at.values_of("commit"))]
        for profile in results.values_of("profile")
        for device in results.where(profile=profile).values_of("device")
        for at in [results.where(profile=profile, device=device)]
    ]  # fmt: skip
    return markdown(("profile", "device", "records", "iterations", "training (s)", "commits"), rows)


def _of_headline(results: Results) -> set[str]:
    """The trainers of its two systems."""
    return {record["trainer"] for record in results.records if record["selected"]}


def _range(results: Results, name: str) -> str:
    values = [record[name] for record in results.records]
    return f"{min(values)} to {max(values)}"


def _cells(system: Results, metric: str) -> Sequence[str]:
    return [
        *(mean_and_spread(system.where(test_input=given), metric) for given in LGG.inputs),
        system.mean_of_inputs(metric),
    ]


def _minutes(system: Results) -> str:
    """Of one training, the mean over the seeds."""
    seconds = {record["seed"]: record["seconds"] for record in system.records}
    return f"{np.mean(list(seconds.values())) / 60:.1f}"


PARTS = (
    candidates, finalists, remedies, unpaired_remedies, headline, headline_assd, comparison, comparison_transductive,
    missing, gap, ladder, ablations, others, misalignment, labels, provenance,
)  # fmt: skip

if __name__ == "__main__":
    main()
