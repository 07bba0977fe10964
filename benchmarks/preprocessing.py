"""A case's preprocessing against stock nnU-Net's, and the pass for intensity statistics against the fingerprint's.

    python benchmarks/preprocessing.py [--layout registered] [--spacing 1.5] [--repeats 3]

Generated abdomens, in this process with one thread; the plans are CMCPlanner's for both preprocessors. Planning reads
every case a second time, since nnU-Net's fingerprint mixes absent channels and hidden labels into its statistics.
``--samples 1e6`` is what ``CMCFingerprintExtractor`` takes.
"""

import tempfile
from functools import partial

import numpy as np
from measure import begin, interleaved, parser, print_table, quiet, ratio, spread
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from workspace import Workspace

from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor
from nnunet_cmc.planners.cmc_planner import CMCPlanner
from nnunet_cmc.planners.intensities import intensity_statistics


def fingerprint(dataset: dict[str, dict], samples: float) -> None:
    """Do what nnU-Net's extraction does to every case, and to all samples at the end."""
    cases = [
        DatasetFingerprintExtractor.analyze_case(
            files["images"], files["label"], SimpleITKIOWithReorient, int(samples // len(dataset))
        )
        for files in dataset.values()
    ]
    for channel in range(len(cases[0][2])):
        voxels = np.concatenate([case[2][channel] for case in cases])
        np.percentile(voxels, (0.5, 50.0, 99.5))
        voxels.mean(), voxels.std(), voxels.min(), voxels.max()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--layout", choices=("registered", "unpaired"), default="registered")
    arguments.add_argument("--spacing", type=float, default=1.5, help="mm that cases are resampled to")
    arguments.add_argument("--samples", type=float, default=1e8, help="of the fingerprint; 1e8 are nnU-Net's")
    args = arguments.parse_args()
    args.threads = 1  # as a worker has
    begin(args)
    with tempfile.TemporaryDirectory() as root:
        with quiet():
            workspace = Workspace(root, args.layout, seed=args.seed)
            plans = workspace.plan(CMCPlanner, (args.spacing,) * 3)
            dataset = {
                case: {"images": workspace.images(case), "label": str(label)}
                for case, label in zip(workspace.cases, workspace.labels, strict=True)
            }
            passes = {
                "fingerprint": partial(fingerprint, dataset, args.samples),
                "intensity statistics": partial(intensity_statistics, dataset, workspace.description, ()),
            }
            seconds = interleaved(passes, args.repeats)
            both = {
                cls.__name__: partial(workspace.preprocess, plans, cls)
                for cls in (DefaultPreprocessor, CMCPreprocessor)
            }
            seconds |= interleaved(both, args.repeats)
        first = dict.fromkeys(passes, "fingerprint") | dict.fromkeys(both, "DefaultPreprocessor")
        print(f"{len(dataset)} {args.layout} cases of 56 x 56 x 72 voxels or so, to {args.spacing:g} mm")
        print_table(
            ("pass over all cases", "time of a case (s)", "nnU-Net = 1"),
            (
                (name, spread([each / len(dataset) for each in taken]), spread(ratio(taken, seconds[first[name]])))
                for name, taken in seconds.items()
            ),
        )


if __name__ == "__main__":
    main()
