"""Train, predict and judge what a table needs; every finished run adds its records to a file in docs/.

    python benchmarks/evidence/run.py TABLE --data FOLDER --work FOLDER [--profile cpu] [--seeds 3] [--jobs 2]

FOLDER of the data holds ``images_FLAIR``, ``images_T1post``, ``labels`` and ``split.json`` (80 training subjects in an
order, 20 test subjects); for the table ``amos`` it is what amos.py makes. Everything else goes to the work folder. Give
the same command again after an interruption: it goes on where it was. The table ``headline`` needs ``candidates`` and
``finalists`` first, of which the best on the validation subjects is taken. Then
``python benchmarks/evidence/report.py`` writes docs/results.md.
"""

import argparse
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import records
from experiment import Bench
from systems import PROFILES, TABLES, Candidate, Run, choose, finalists, table_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("--seeds", type=int, default=3, help="of the headline (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (%(default)s)")
    parser.add_argument("--results", type=Path, help="file of the records (that of the profile, in docs/)")
    args = parser.parse_args()
    profile = PROFILES[args.profile]
    args.results = args.results or records.FILE.with_name(profile.results)
    chosen: list[Candidate] = []
    if args.table == "finalists":
        chosen = finalists(records.load(args.results), profile)
    elif args.table in ("headline", "labels", "misalignment", "amos"):
        chosen = choose(records.load(args.results), profile)
    if args.table == "headline":  # the choice may have changed since the last time
        before = [record for record in records.load(args.results) if record["profile"] == args.profile]
        records.save([{**record, "selected": False} for record in before], args.results)
    runs = table_runs(args.table, profile, args.seeds, chosen)
    benches = {run.shift: Bench(args.data, args.work, profile, run.source, run.shift) for run in runs}

    def keep(run: Run, found: list[dict]) -> None:
        for record in found:
            record["selected"] = args.table == "headline" or was_selected(record)
        records.save(found, args.results)
        print(run.key, ", ".join(f"{record['test_input']} {record['dice']}" for record in found), flush=True)

    def was_selected(record: dict) -> bool:
        return any(old["selected"] for old in records.load(args.results) if records.key(old) == records.key(record))

    if failed := finish_all(runs, benches, args.jobs, keep):
        sys.exit(f"{failed} runs failed.")


def finish_all(
    runs: Sequence[Run], benches: Mapping[float, Bench], jobs: int, keep: Callable[[Run, list[dict]], None]
) -> int:
    """Prepare and finish runs, some at the same time, and return how many failed.

    Args:
        benches: by misalignment in mm.
        jobs: runs at the same time.
        keep: is given each finished run's records, one run at a time.
    """
    locks: defaultdict[object, Lock] = defaultdict(Lock)  # of what two runs may share: scans, a dataset, a model
    keeping, failed = Lock(), []

    def work(run: Run) -> None:
        bench = benches[run.shift]
        try:
            with locks[bench.scans]:
                bench.make_scans()
            with locks[bench.raw(run)]:
                bench.prepare(run)
            with locks[bench.model(run)]:
                found = bench.finish(run)
        except Exception:
            failed.append(run)
            traceback.print_exc()
            return
        with keeping:
            keep(run, found)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, runs))
    return len(failed)


if __name__ == "__main__":
    main()
