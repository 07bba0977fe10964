"""Make docs/results.md, its figure and docs/comparison.md of docs/results.json.

    python benchmarks/evidence/report.py

The text around the tables is in results_text.md and comparison_text.md, which say where each table goes.
"""

import argparse
import hashlib
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import figures
import numpy as np
import records
from intervals import Difference, paired_difference
from sources import AMOS, LGG, Source
from systems import DEFAULT, GPU, PSEUDO_LABELS, STOCK_TRAINER, TABLES, Run
from table import (
    NOT_RUN,
    Results,
    Systems,
    arrangements,
    better_stock,
    by_system,
    markdown,
    mean_and_spread,
    name_of,
    profile_of,
)

from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.utils.files import to_json

HERE = Path(__file__).resolve().parent
INPUTS = (*(f"{modality} alone" for modality in LGG.modalities), "both", "mean")
TIME = "training (min)"
AGAINST = {"": "nnU-Net", PSEUDO_LABELS[-1]: "nnU-Net with pseudo-labels"}
Rivals = dict[str, Systems]  # recipe of nnU-Net -> its systems and ours, of the seeds that they share
PAGES = ("results", "comparison")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.FILE)
    write(parser.parse_args().results)


def write(file: Path) -> None:
    """Write the pages beside the file of the records, and the figure if the headline was run somewhere."""
    headline = by_system(Results(records.load(file)), TABLES["headline"])
    if arrangements(headline):
        source = {"Source": digest(headline)}
        figures.headline(headline).savefig(file.with_name("results.png"), dpi=150, metadata=source)
    for name, text in pages(file).items():
        file.with_name(f"{name}.md").write_text(text, encoding="utf-8")
        print(f"Written: {file.with_name(f'{name}.md')}")


def digest(systems: Systems) -> str:
    """Return what distinguishes the records of these systems; the figure has it in its metadata."""
    shown = [its.records for its in systems.values()]
    return f"records of SHA-256 {hashlib.sha256(to_json(shown, sort_keys=True).encode()).hexdigest()}"


def pages(file: Path) -> dict[str, str]:
    """Make the pages by name, with tables of the records of this file."""
    results = Results(records.load(file))
    runs = {**TABLES, "gpu": [replace(run, profile=GPU) for run in TABLES["headline"]]}
    systems = {table: by_system(results, its) for table, its in runs.items()}
    parts = {
        "parts": by_trainer(systems["parts"], described=True),
        "systems": by_trainer(systems["systems"]),
        "labels": rows_of(systems["labels"], "labelled", lambda run: str(LGG.labeled[run.labels])),
        "misalignment": rows_of(systems["misalignment"], "shift (mm)", lambda run: f"{run.shift:g}"),
        "amos": rows_of(systems["amos"], "arrangement", lambda run: run.arrangement, AMOS),
        "provenance": provenance(results),
    }
    for name in ("headline", "longer", "gpu"):
        rivals = against(results, runs[name])
        parts |= {f"{name}_{part.__name__}": part(rivals) for part in (answer, comparison, targets)}
        parts[f"{name}_means"] = means(systems[name])
    texts = {name: (HERE / f"{name}_text.md").read_text(encoding="utf-8") for name in PAGES}
    filled = {name: re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text) for name, text in texts.items()}
    return {name: without_empty_sections(text) for name, text in filled.items()}


def without_empty_sections(page: str) -> str:
    """Leave out sections of a page whose tables have no row; the last section gets a sentence that names them."""
    head, *sections = re.split(r"\n(?=## )", page)
    empty = [section for section in sections if NOT_RUN in section and "\n|" not in section]
    if not empty:
        return page
    titles = ", ".join(f"*{section.splitlines()[0].removeprefix('## ')}*" for section in empty)
    sentence = textwrap.fill(f"Not run yet: {titles}.", 120, break_on_hyphens=False)
    return "\n".join([head, *(section for section in sections if section not in empty)]) + f"\n{sentence}\n"


def means(systems: Systems) -> str:
    """Tabulate means over seeds and the spread between them."""
    return rows_of(systems, "arrangement", lambda run: run.arrangement)


def rows_of(systems: Systems, what: str, condition: Callable[[Run], str], source: Source = LGG) -> str:
    """Tabulate systems, each beside what distinguishes it; nnU-Net's one-channel models share a row."""
    grouped: dict[tuple[str, str], list[dict]] = {}
    for run, its in systems.items():
        grouped.setdefault((condition(run), name_of(run)), []).extend(its.records)
    rows = [
        [*names, str(len(its.seeds)), *cells(its, source), minutes(its)]
        for names, found in grouped.items()
        for its in [Results(found)]
    ]
    header = (*(given if given == "both" else f"{given} alone" for given in source.inputs), "mean")
    return markdown((what, "system", "seeds", *header, TIME), rows)


def by_trainer(systems: Systems, described: bool = False) -> str:
    """Tabulate trainers of ours, and how far the default is ahead of each in the mean of the inputs."""
    rows = []
    if all(run.trainer == DEFAULT for run in systems):  # nothing to compare it with
        systems = {}
    for run, its in systems.items():
        default = systems.get(replace(run, trainer=DEFAULT), its)
        ahead = "" if default is its else str(paired_difference(mean_input(default), mean_input(its)))
        name = f"`{run.trainer}`" + (f": {RECIPES[run.trainer].purpose}" if described else "")
        rows.append([run.arrangement, name, str(len(its.seeds)), *cells(its), ahead, minutes(its)])
    return markdown(("arrangement", "trainer", "seeds", *INPUTS, f"{DEFAULT} minus this", TIME), rows)


def mean_input(results: Results) -> np.ndarray:
    """Return Dice ``(seeds, subjects)``, the mean of the inputs."""
    return np.mean([results.by_subject(given) for given in LGG.inputs], axis=0)


def against(results: Results, runs: Iterable[Run]) -> Rivals:
    """Put the default beside nnU-Net of each recipe by itself, so that no comparison lacks seeds for another's sake."""
    return {
        recipe: by_system(results, [run for run in runs if not run.stock or run.recipe == recipe]) for recipe in AGAINST
    }


def differences(rivals: Rivals, arrangement: str, recipe: str) -> dict[str, Difference]:
    """Compare the default with the better nnU-Net, by input and in their mean; empty where a model was not run."""
    systems = rivals[recipe]
    if arrangement not in arrangements(systems, recipe):
        return {}
    profile = profile_of(systems)
    ours = systems[Run(arrangement, DEFAULT, profile=profile)]
    pairs = [(ours.by_subject(given), better_stock(systems, arrangement, given, recipe)) for given in LGG.inputs]
    found = {given: paired_difference(*pair) for given, pair in zip(LGG.inputs, pairs, strict=True)}
    return {**found, "mean": paired_difference(*np.mean(pairs, axis=0))}


def comparison(rivals: Rivals) -> str:
    """Tabulate the default minus the better nnU-Net of each input."""
    rows = [
        [arrangement, other, str(found["mean"].seeds), *map(str, found.values()), found["mean"].spread]
        for arrangement in arrangements(rivals[""])
        for recipe, other in AGAINST.items()
        if (found := differences(rivals, arrangement, recipe))
    ]
    return markdown(("arrangement", f"{DEFAULT} minus", "seeds", *INPUTS, "seeds' spread of the mean"), rows)


def answer(rivals: Rivals) -> str:
    """Say in a paragraph by how much the default is ahead in the mean of the inputs, and of how many seeds that is."""
    where = arrangements(rivals[""])
    if not where:
        return NOT_RUN
    sentences = []
    for recipe, other in AGAINST.items():
        found = {arrangement: differences(rivals, arrangement, recipe) for arrangement in where}
        ahead = [
            f"{its['mean'].mean:+.1f} points ({arrangement}, {its['mean'].seeds} of {LGG.folds} seeds)"
            for arrangement, its in found.items()
            if its
        ]
        if ahead:
            sentences.append(f"In the mean of the inputs `{DEFAULT}` minus {other} is {', '.join(ahead)}.")
    sentences = [f"**{' '.join(sentences)}**", "Which of these are more than chance is said below."]
    return textwrap.fill(" ".join(sentences), 120, break_on_hyphens=False)


def targets(rivals: Rivals) -> str:
    """Tabulate whether the targets, set before the first run, are met; one seed leaves them open, whatever it says."""
    systems = rivals[""]
    rows: dict[str, list[str]] = {}
    for arrangement in arrangements(systems):
        plain, taught = (differences(rivals, arrangement, recipe) for recipe in AGAINST)
        ours, theirs = two_channels(systems, arrangement)
        lost, stock_lost = lost_without_first(ours), lost_without_first(theirs)
        worst = min((plain[given] for given in LGG.inputs), key=lambda difference: difference.mean)
        for target, met, found in (
            ("3 points or more above nnU-Net in the mean, and zero outside of the interval",
             plain["mean"].low > 0 and plain["mean"].mean >= 3, plain["mean"]),
            ("no input more than a point behind", worst.mean >= -1, worst),
            ("not behind nnU-Net with pseudo-labels in the mean",
             taught["mean"].mean >= 0 if taught else None, taught.get("mean")),
            (f"without {LGG.modalities[0]} a loss of less than half of two-channel nnU-Net's",
             lost < stock_lost / 2, f"{lost:.2f} lost, nnU-Net {stock_lost:.2f}"),
        ):  # fmt: skip
            seeds = found.seeds if isinstance(found, Difference) else len(ours.seeds)
            shown = found.in_figures(2) if isinstance(found, Difference) else found
            said = f"{'open' if seeds == 1 else 'met' if met else '**missed**'}: {shown}"
            rows.setdefault(target, []).append("not run" if met is None else said)
    return markdown(("target", *arrangements(systems)), [[target, *cells] for target, cells in rows.items()])


def two_channels(systems: Systems, arrangement: str) -> list[Results]:
    """Return the default, and nnU-Net on both modalities."""
    return [systems[Run(arrangement, trainer, profile=profile_of(systems))] for trainer in (DEFAULT, STOCK_TRAINER)]


def lost_without_first(results: Results) -> float:
    """Return the points of Dice that are lost when the first modality is missing."""
    return float(results.by_subject("both").mean() - results.by_subject(LGG.modalities[1]).mean())


def provenance(results: Results) -> str:
    rows = [
        [profile, device, str(len(at.records)), f"{at.records[0]['iterations']}",
         ", ".join(f"`{commit}`" for commit in at.values_of("commit"))]
        for profile in results.values_of("profile")
        for device in results.where(profile=profile).values_of("device")
        for at in [results.where(profile=profile, device=device)]
    ]  # fmt: skip
    return markdown(("profile", "device", "records", "iterations", "commits"), rows)


def cells(results: Results, source: Source = LGG) -> list[str]:
    each = (mean_and_spread(results.where(test_input=given)) for given in source.inputs)
    return [*each, results.mean_of_inputs(source=source)]


def minutes(results: Results) -> str:
    """Average over seeds the time of the trainings that the row needs: of each of its models, and of their teachers."""
    times = {(record["seed"], record["channels"]): record["seconds"] for record in results.records}
    return f"{sum(times.values()) / len(results.seeds) / 60:.1f}"


if __name__ == "__main__":
    main()
