"""How much of the encoders' gradient CSC and CAC are, weighted as trained, along the headline's trainings of ours.

    python benchmarks/evidence/term_shares.py --data FOLDER --work FOLDER [--profile cpu] [--seeds 3]

Reads the ``progress.csv`` of each training in run.py's work folder. Percent of the supervised term's norm at an epoch's
first iteration, the median over encoders and seeds.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import records
from arrangements import ARRANGEMENTS
from experiment import Bench
from sources import LGG
from systems import PROFILES, choose, table_runs
from table import markdown

WEIGHTS = {"csc": "alpha", "cac": "beta"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    profile = PROFILES[args.profile]
    runs = [
        run for run in table_runs("headline", profile, args.seeds, choose(records.load(), profile)) if not run.stock
    ]
    bench = Bench(args.data, args.work, profile, LGG, runs[0].shift)
    rows = []
    for arrangement in ARRANGEMENTS:
        files = [bench.model(run) / "progress.csv" for run in runs if run.arrangement == arrangement]
        for term in WEIGHTS:
            percent = np.median([share for file in files for share in shares(file, term)], axis=0)
            rows.append([arrangement, term, *(f"{value:.1f}" for value in percent)])
    print(markdown(("arrangement", "term", *(f"epoch {epoch}" for epoch in range(1, profile.epochs + 1))), rows))


def shares(file: Path, term: str) -> list[list[float]]:
    """For each encoder, or the one that is shared, of every epoch, in percent."""
    with file.open() as opened:
        epochs = list(csv.DictReader(opened))
    supervised = "gradient/supervised/"
    encoders = [name.removeprefix(supervised) for name in epochs[0] if name.startswith(f"{supervised}encoder")]
    return [
        [
            100 * float(epoch[WEIGHTS[term]]) * float(epoch[f"gradient/{term}/{encoder}"])
            / float(epoch[f"{supervised}{encoder}"])
            for epoch in epochs
        ]
        for encoder in encoders
    ]  # fmt: skip


if __name__ == "__main__":
    main()
