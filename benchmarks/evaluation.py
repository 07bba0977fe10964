"""Time and memory of ``nnunet_cmc evaluate`` on large label maps.

    python benchmarks/evaluation.py [--cases 100] [--side 256] [--processes 2]

Label maps of side^3 voxels at 1 mm with 13 classes, a number of ellipsoids as large as abdominal organs that fill a
tenth of the volume; predictions are shifted by two voxels and have a ragged border and far-off islands. Four are
generated, the others are links to them. Prints the time and the memory of the largest process.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_cmc.utils.files import write_json

CLASSES = 13
DISTINCT = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reference, prediction = Path(folder, "labelsTs"), Path(folder, "predictions")
        generate(reference, prediction, args.cases, args.side)
        command = ["nnunet_cmc", "evaluate", "-r", reference, "-p", prediction, "-np", str(args.processes)]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{args.cases} cases of {args.side}^3, {CLASSES} classes, {args.processes} processes, {os.cpu_count()} cores:"
    )
    print(f"{seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processor time in all")
    print(f"{used.ru_maxrss / 2**20:.2f} GiB in the largest process")


def generate(reference: Path, prediction: Path, cases: int, side: int) -> None:
    rng = np.random.default_rng(0)
    labels = {"background": 0, **{f"class {label}": label for label in range(1, CLASSES + 1)}}
    for folder in (reference, prediction):
        folder.mkdir()
    content = {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    write_json(prediction / "dataset.json", content)
    z, y, x = np.indices((side,) * 3, dtype=np.float32) / side
    for number in range(cases):
        names = [folder / f"case_{number:03d}.nii.gz" for folder in (reference, prediction)]
        if number >= DISTINCT:
            for name in names:
                name.symlink_to(name.with_name(f"case_{number % DISTINCT:03d}.nii.gz"))
            continue
        volume = np.zeros((side,) * 3, np.uint8)
        for label in range(1, CLASSES + 1):
            centre, radius = rng.uniform(0.2, 0.8, 3), rng.uniform(0.05, 0.2, 3)
            inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radius, strict=True)) < 1
            volume[inside] = label
        predicted = np.roll(volume, (0, 2, 0), (0, 1, 2))
        predicted[rng.random(volume.shape) < 1e-6] = 1
        predicted[(predicted != volume) & (rng.random(volume.shape) < 0.3)] = 0
        for name, array in zip(names, (volume, predicted), strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(name), True)


if __name__ == "__main__":
    main()
