"""From separate networks to CMCTrainer, a part at a time, without a test subject.

    python benchmarks/evidence/ladder.py --data FOLDER --work FOLDER [--seeds 3] [--arrangements unpaired registered]
        [--rungs CMCTrainer_supervised CMCTrainer ...] [--jobs 2] [--iterations 300]
        [--source amos_synthetic --labels 0.2]

FOLDER of the data is that of run.py or, for that other source, what amos.py made. A seed's labelled, unlabelled and
validation subjects are those of run.py, too. All trainings have nnU-Net's plan at one spacing, and the same width,
patch and batch; nnU-Net's own trainer trains a model for each input. Every finished run adds its records to
ladder.json; give the same command again after an interruption. The validation subjects are few, so the unlabelled
ones are predicted, too, and compared with their labels, which no training has read, though it may have seen the scans:
*hidden*. Prints a table in Markdown: Dice in percent, mean and spread over seeds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import records
from experiment import Bench, dice_of, finish_all, mean_dice
from sources import ARRANGEMENTS, LGG, SOURCES, Source
from systems import DEFAULT, PARTS, STOCK_TRAINER, Profile, Reduced, Run, needs_registered, stock
from table import Results, markdown, mean_and_spread

from nnunet_cmc.trainers.compared import COMPARED

RUNGS = (*PARTS, *COMPARED, STOCK_TRAINER)
EPOCHS = 10


class ValidationBench(Bench):
    """Evaluates on the validation subjects and, by their hidden labels, on the unlabelled ones."""

    def evaluate(self, run: Run, given: str, seconds: float) -> dict:
        """Predict them with the modalities ``given``."""
        validation, unlabeled = self.subjects.validation, self.subjects.unlabeled(run.labels)
        evaluated = self.evaluate_subjects(run, given, [*validation, *unlabeled])
        cases = [evaluated[subject] for subject in validation]
        return self.describe(run, given, seconds) | {
            "validation_dice": mean_dice(cases),
            "validation_by_subject": dict(zip(validation, dice_of(cases), strict=True)),
            "hidden_dice": mean_dice([evaluated[subject] for subject in unlabeled]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--source", choices=SOURCES, default=LGG.name, help="%(default)s")
    parser.add_argument("--labels", type=float, default=0.1, help="fraction of them (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="%(default)s")
    parser.add_argument("--arrangements", nargs="+", choices=ARRANGEMENTS, default=["unpaired", "registered"])
    parser.add_argument("--rungs", nargs="+", default=RUNGS, help="trainers (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (%(default)s)")
    parser.add_argument("--iterations", type=int, default=300, help="of a training (%(default)s)")
    parser.add_argument("--spacing", type=float, default=5.0, help="mm (%(default)s)")
    parser.add_argument("--channels", type=int, default=16, help="of the first stage; nnU-Net has 32 (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("ladder.json"))
    args = parser.parse_args()
    epochs = min(EPOCHS, args.iterations)
    source = SOURCES[args.source]
    name = f"ladder-{args.iterations}x{args.channels}-{args.spacing:g}mm"
    reduced = Reduced(args.channels)
    profile = Profile(name, args.device, epochs, args.iterations // epochs, args.spacing, reduced, 0)
    runs = [
        run
        for seed in range(args.seeds)
        for given in ({"seed": seed, "labels": args.labels, "source": source, "profile": profile},)
        for rung in args.rungs
        for arrangement in args.arrangements
        if arrangement != "unpaired" or not needs_registered(rung)
        for run in (stock(arrangement, **given) if rung == STOCK_TRAINER else [Run(arrangement, rung, **given)])
    ]

    def keep(run: Run, found: list[dict]) -> None:
        records.save(found, args.results)
        dice = ", ".join(f"{record['test_input']} {record['validation_dice']}" for record in found)
        print(run.key, dice, file=sys.stderr, flush=True)

    failed = finish_all(runs, lambda run: ValidationBench(args.data, args.work, run).finish(run), args.jobs, keep)
    measured = Results(records.load(args.results))
    print(table(measured.where(profile=name, labels=args.labels), args.arrangements, args.rungs, source))
    if failed:
        sys.exit(f"{failed} runs failed.")


def table(results: Results, arrangements: Sequence[str], rungs: Sequence[str], source: Source = LGG) -> str:
    """Tabulate the validation Dice of each rung by input; of nnU-Net that of the model of this very input.

    Seeds have unlike subjects, so each row shows the default's mean on its seeds, too, if the default was run on them.
    """
    rows = []
    for arrangement in arrangements:
        for rung in rungs:
            at = results.where(dataset=source.name, arrangement=arrangement, trainer=f"{rung}_cmcbudget")
            if rung == STOCK_TRAINER:
                at = Results([record for record in at.records if record["channels"] == record["test_input"]])
            if at.records:
                cells = [mean_and_spread(at.where(test_input=given), "validation_dice") for given in source.inputs]
                theirs = results.where(dataset=source.name, arrangement=arrangement, trainer=f"{DEFAULT}_cmcbudget")
                default = Results([record for record in theirs.records if record["seed"] in at.seeds])
                means = [each.mean_of_inputs("validation_dice", source) for each in (at, default)]
                if default.seeds != at.seeds:
                    means[1] = ""
                hidden = at.mean_of_inputs("hidden_dice", source) if all("hidden_dice" in r for r in at.records) else ""
                rows.append([arrangement, rung, ", ".join(map(str, at.seeds)), *cells, *means, hidden])
    header = ("arrangement", "trainer", "seeds", *source.inputs, "mean", f"{DEFAULT}'s, same seeds", "hidden, mean")
    if not any(row[-1] for row in rows):  # of earlier records
        header, rows = header[:-1], [row[:-1] for row in rows]
    return markdown(header, rows)


if __name__ == "__main__":
    main()
