"""Patches a second and worker: pairs of modalities against nnU-Net's own loader, on the same preprocessed cases.

    python benchmarks/loading.py [--side 96] [--batch 2] [--draws 10] [--workers 1 2]

Both loaders draw labelled patches in this process with one thread. The n-th augmentation decides the same in both, as
one that interpolates takes several times as long as one that does not. A registered pair is one patch; an unpaired one
is two, so *pairs* cost two reads. ``absent`` repeats the unpaired cases with channels that no scan has: they must cost
nothing. ``read`` is what is asked of a volume on disk, as a share of the patch before augmentation: at most 1, however
large the volume is.

*Workers* are processes that load for ``CMCTrainer``, as in a training: milliseconds by the clock for the batch of a
step, and how many such processes a step of 0.1 s needs at this rate. Each needs a core of its own.

Last, what a strong view and the drawing of another contrast cost beside nnU-Net's augmentation of the same row, a patch
of 64^3 with one channel. Contrasts are computed in the training step, of which train_step.py shows the share.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from measure import begin, interleaved, parser, print_table, quiet, ratio, spread
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from workspace import Workspace

from nnunet_cmc.data.loading import pairs
from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.data.loading.locating import LocatingTransform
from nnunet_cmc.data.loading.pairs import PairLoader
from nnunet_cmc.data.loading.sampling import CaseSampler
from nnunet_cmc.data.loading.seeding import seeded
from nnunet_cmc.data.loading.views import RandomizeContrast, perturbation
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNet
from nnunet_cmc.planners.tiny import CMCPlannerTiny

STEP = 0.1  # s


class Spy:
    """A volume on disk that notes how many voxels of a channel are asked for."""

    def __init__(self, volume, asked: list[int]):
        self.volume, self.asked, self.shape, self.dtype = volume, asked, volume.shape, volume.dtype

    def __getitem__(self, box):
        part = self.volume[box]
        self.asked.append(int(np.prod(part.shape)))
        return part


class SameDecisions:
    """An augmentation whose n-th call decides like the n-th of any other, for ``period`` calls and then again."""

    def __init__(self, transforms: Callable[..., dict], period: int):
        self.transforms, self.period, self.calls = transforms, period, 0

    def __call__(self, **sample) -> dict:
        self.calls += 1
        with seeded(self.calls % self.period):
            return self.transforms(**sample)


def loaders(workspace: Workspace, side: int, batch: int, period: int) -> tuple[Callable, PairLoader, nnUNetDataLoader]:
    """Return what makes our loader from a sampler of labelled cases, our loader, and nnU-Net's of the same cases."""
    plans = workspace.plan(CMCPlannerTiny, spacing=(144 / side,) * 3, side=side, batch_size=batch)
    folder = workspace.preprocess(plans)
    trainer = workspace.trainer(plans, torch.device("cpu"), "CMCTrainerPaper")  # no views: pairs alone
    made = trainer.get_dataloaders()[0].data_loader
    dataset = trainer.dataset_class(str(folder), workspace.cases[:-2])
    common = (batch, made.patch_size, made.final_patch_size, trainer.label_manager, 0.33)

    def pairs_of(sampler: CaseSampler) -> PairLoader:
        transforms = SameDecisions(made.transforms, period)
        return PairLoader(
            sampler, None, batch, batch, *common[1:], trainer.recipe.fusion, transforms, transforms, seed=0
        )

    steps = [step.spatial if isinstance(step, LocatingTransform) else step for step in made.transforms.transforms]
    stock = nnUNetDataLoader(dataset, *common, transforms=SameDecisions(ComposeTransforms(steps), period))
    return pairs_of, pairs_of(CaseSampler(dataset, workspace.description)), stock


def share_read(loader: PairLoader) -> float:
    """Compute the voxels of the largest read, relative to those of a patch."""
    asked: list[int] = []
    crop = pairs.crop_and_pad_nd
    with patch.object(pairs, "crop_and_pad_nd", lambda volume, *rest, **more: crop(Spy(volume, asked), *rest, **more)):
        batch = next(loader)
    channels = int((batch["data"] != 0).flatten(2).any(2).sum(1).max())
    return max(asked) / channels / np.prod(loader.patch_size)


def with_empty_channels(workspace: Workspace, loader: PairLoader, channels: int) -> CaseSampler:
    """Return the same cases, with further channels that are empty."""
    description = replace(workspace.description, modalities=tuple(f"channel {i}" for i in range(channels)))
    folder = workspace.preprocessed / f"{channels}_channels"
    folder.mkdir()
    for case in loader.labeled.cases:
        data, seg, _, properties = loader.labeled.dataset.load_case(case)
        wide = np.zeros((channels, *data.shape[1:]), np.float32)
        wide[: len(data)] = data[:]
        sizes = {"chunks": data.chunks, "blocks": data.blocks, "chunks_seg": seg.chunks, "blocks_seg": seg.blocks}
        nnUNetDatasetBlosc2.save_case(wide, seg[:], properties, str(folder / case), **sizes)
    return CaseSampler(nnUNetDatasetBlosc2(str(folder), loader.labeled.cases), description)


def seconds_a_batch(workspace: Workspace, plans: dict, workers: int, draws: int, repeats: int) -> list[float]:
    """Time batches for ``CMCTrainer`` from this number of processes, after those that were loaded while they started.

    Its unlabelled pairs take the place of labelled ones: all are labelled here.
    """
    trainer = workspace.trainer(plans, torch.device("cpu"))
    with patch.dict(os.environ, nnUNet_n_proc_DA=str(workers)):
        trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    try:
        loaded = 4 * workers + 8  # more than all queues hold
        draw(trainer.dataloader_train, loaded)
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            draw(trainer.dataloader_train, draws)
            seconds.append((time.perf_counter() - started) / draws)
        return seconds
    finally:
        trainer.close_loaders()


def workers_table(args: argparse.Namespace) -> list[tuple[str, str, str, str]]:
    """Return seconds a batch, and workers for a step of 0.1 s, by layout and number of workers."""
    table = []
    for layout in ("registered", "unpaired"):
        with tempfile.TemporaryDirectory() as root, quiet():
            workspace = Workspace(root, layout, seed=args.seed)
            plans = workspace.plan(CMCPlannerNNUNet, side=args.side, batch_size=args.batch)
            workspace.preprocess(plans)
            for workers in args.workers:
                seconds = seconds_a_batch(workspace, plans, workers, args.draws, args.repeats)
                needed = [workers * each / STEP for each in seconds]
                table.append((layout, str(workers), spread(seconds, 1e3), spread(needed)))
    return table


def draw(loader, batches: int) -> None:
    for _ in range(batches):
        next(loader)


def augmentation_table(repeats: int, rows: int, side: int = 64) -> list[tuple[str, str, str]]:
    """Time nnU-Net's augmentation and both parts of a strong view, in ms and as shares of the former."""
    patch_size, rotation = (side,) * 3, (-np.pi / 6, np.pi / 6)
    read = get_patch_size(patch_size, rotation, rotation, rotation, (0.85, 1.25))
    image, seg = torch.randn(1, *read), torch.zeros(1, *read, dtype=torch.int16)
    stock = nnUNetTrainer.get_training_transforms(patch_size, rotation, None, (0, 1, 2), False)
    row = torch.randn(1, *patch_size)
    nothing, alone = torch.zeros(0), torch.ones(1, 1, 1, dtype=torch.bool)
    batch = Batch(row[None], nothing, alone, nothing, nothing, strong=row[None])
    steps: dict[str, Callable[[], object]] = {
        "nnU-Net": lambda: stock(image=image.clone(), segmentation=seg.clone()),
        "StrongView": partial(_on_copy, perturbation(patch_size), row),
        "RandomizeContrast": partial(RandomizeContrast(), batch),
    }
    seconds = interleaved({name: partial(_repeat, step, rows) for name, step in steps.items()}, repeats)
    return [
        (name, spread(taken, 1e3 / rows), spread(ratio(taken, seconds["nnU-Net"]))) for name, taken in seconds.items()
    ]


def _on_copy(transform: Callable[..., dict], row: torch.Tensor) -> dict:
    return transform(image=row.clone())


def _repeat(step: Callable[[], object], times: int) -> None:
    for _ in range(times):
        step()


def main() -> None:
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("--side", type=int, default=96, help="of the patch in voxels")
    arguments.add_argument("--batch", type=int, default=2, help="pairs")
    arguments.add_argument(
        "--draws", type=int, default=10, help="batches that are timed at once: each is augmented anew"
    )
    arguments.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="numbers of processes")
    args = arguments.parse_args()
    args.threads = 1  # as a worker has
    begin(args)
    table = []
    for layout in ("registered", "unpaired"):
        with tempfile.TemporaryDirectory() as root:
            with quiet():
                workspace = Workspace(root, layout, seed=args.seed)
                pairs_of, ours, stock = loaders(workspace, args.side, args.batch, args.draws * args.batch)
                steps = {"nnU-Net": partial(draw, stock, args.draws), "pairs": partial(draw, ours, args.draws)}
                if layout == "unpaired":
                    wide = pairs_of(with_empty_channels(workspace, ours, 4))
                    steps["pairs, two more channels absent"] = partial(draw, wide, args.draws)
            seconds = interleaved(steps, args.repeats)
            for name, taken in seconds.items():
                rate = [args.draws * args.batch / each for each in taken]
                read = "" if name == "nnU-Net" else f"{share_read(ours):.2f}"
                table.append((layout, name, spread(rate), spread(ratio(seconds["nnU-Net"], taken)), read))
    print_table(("layout", "loader", "patches or pairs / s", "nnU-Net = 1", "read"), table)
    print()
    print_table(("layout", "workers", "ms a batch", "workers for a step of 0.1 s"), workers_table(args))
    print()
    augmentation = augmentation_table(args.repeats, rows=min(100, 10 * args.draws))
    print_table(("augmentation of a row", "ms", "share of nnU-Net's"), augmentation)


if __name__ == "__main__":
    main()
