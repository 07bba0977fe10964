"""Train, predict and evaluate all that docs/results.md needs, and write the page.

    python benchmarks/evidence/run.py --data FOLDER --amos FOLDER --work FOLDER [--jobs 2]
        [--tables headline parts ...] [--seeds 5] [--profile gpu] [--missing]

FOLDER of the data holds ``images_FLAIR``, ``images_T1post``, ``labels`` and ``split.json`` (``train_order`` and
``test``); that of AMOS its label maps ``*_gt.nii.gz``. Everything else goes to the work folder. Every finished run adds
its records to docs/results.json. Give the same command again after an interruption: it goes on where it was, a cut
training too. On another machine ``--missing`` leaves out the runs that have records. ``--profile smoke`` shows whether
it works, and leaves docs/ alone.

Core hours of the tables, in their order: 13, 7, 10, 1, 1, 1 and 17, so 50 for all. They are extrapolated from what was
measured of ``CMCTrainer`` and of nnU-Net, in core seconds: a dataset 50, a training 70 and 30 plus 1.6 and 0.6 an
iteration, a prediction with one input 28 and 18. A run of the smoke profile takes 104 (ours, with its dataset) and
nnU-Net's two rounds of pseudo-labels 187.
"""

import argparse
import resource
import sys
from dataclasses import replace
from pathlib import Path

import amos
import records
import report
from experiment import Bench, finish_all
from sources import AMOS, LGG
from systems import PROFILES, SMOKE, TABLES, Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--amos", type=Path, help="for the table amos")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (%(default)s)")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=[*TABLES], help="(all)")
    parser.add_argument("--seeds", type=int, default=LGG.folds, help="at most so many (%(default)s)")
    parser.add_argument("--profile", choices=PROFILES, help="in place of that of the table")
    parser.add_argument("--missing", action="store_true", help="only runs that have no records yet, of any commit")
    parser.add_argument("--results", type=Path, help="file of the records; the page is written beside it")
    args = parser.parse_args()
    data = {LGG: args.data}
    if "amos" in args.tables:
        if not args.amos:
            parser.error(
                "The table amos is of label maps of AMOS: give their folder with --amos, or name other --tables."
            )
        data[AMOS] = args.work / "amos"
        if not (data[AMOS] / "split.json").is_file():  # which is written last
            amos.make_subjects(args.amos, data[AMOS])
    file = args.results or (args.work / "results.json" if args.profile == SMOKE.name else records.FILE)
    runs = [run for table in args.tables for run in TABLES[table] if run.seed < args.seeds]
    if args.profile:
        runs = [replace(run, profile=PROFILES[args.profile]) for run in runs]
    if args.missing:
        there = {records.key(record) for record in records.load(file)}
        runs = [run for run in runs if not {records.key(one) for one in run.descriptions} <= there]

    def keep(run: Run, found: list[dict]) -> None:
        records.save(found, file)
        print(run.key, ", ".join(f"{record['test_input']} {record['dice']}" for record in found), flush=True)

    failed = finish_all(runs, lambda run: Bench(data[run.source], args.work, run).finish(run), args.jobs, keep)
    report.write(file)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{(spent.ru_utime + spent.ru_stime) / 3600:.2f} core hours")
    if failed:
        sys.exit(f"{failed} runs failed.")


if __name__ == "__main__":
    main()
