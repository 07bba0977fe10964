"""Train for some seconds and predict some windows, to estimate how long a training and the prediction of a case take.

``python -m nnunet_cmc.commands.trial_training`` takes the arguments of nnUNetv2_train, in a process of its own, which
has nnUNet_results, threads and GPU memory to itself: what the training writes goes to a temporary folder of results.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from math import prod
from statistics import median

from nnunet_cmc.utils.parallel import TERMINATED, finish_loaders

EXPECTED = re.compile(r"The training is expected to take (\d+) s, the prediction of a case ([\d.]+) s")
SECONDS = 10.0
OVERLAP = 0.5  # of nnU-Net's windows: the step between them as a share of the patch


def time_training(trainer, seconds: float = SECONDS) -> float:
    """Estimate the seconds of all epochs from some iterations of training and of validation, without the first.

    Left out are checkpoints, the last validation, and what comes later in a training: labelling whole scans, a teacher.

    Args:
        trainer: nnU-Net's or ours, just created; it has then trained a little.
        seconds: for iterations of training; a fifth of them for those of validation. Of each, at least one is timed,
            and at most those of an epoch.
    """
    import torch

    def epoch(step: Callable, loader, number: int, seconds: float) -> float:
        def timed() -> float:
            start = time.perf_counter()
            step(next(loader))  # returns when a GPU has finished, since nnU-Net copies the loss to the host
            return time.perf_counter() - start

        times = [timed()]
        if number > 1:
            times.pop()  # compiles, and chooses the fastest convolutions
        end = time.monotonic() + seconds
        while not times or (time.monotonic() < end and len(times) + 1 < number):
            times.append(timed())
        return number * median(times)

    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    training = epoch(trainer.train_step, trainer.dataloader_train, trainer.num_iterations_per_epoch, seconds)
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        steps = trainer.validation_step, trainer.dataloader_val, trainer.num_val_iterations_per_epoch
        validation = epoch(*steps, seconds / 5)
    return trainer.num_epochs * (training + validation)


def time_prediction(trainer, mirroring: bool) -> float:
    """Estimate the seconds in which the network predicts a case of the dataset's median size.

    Left out are reading, preprocessing and writing.

    Args:
        trainer: that :func:`time_training` has trained a little.
        mirroring: whether windows are predicted mirrored along the axes of the training, too.
    """
    import torch
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    plan = trainer.configuration_manager
    median_size = [round(side) for side in plan.configuration["median_image_size_in_voxels"]]
    size = [max(sides) for sides in zip(median_size, plan.patch_size, strict=True)]
    windows = prod(map(len, compute_steps_for_sliding_window(tuple(size), tuple(plan.patch_size), OVERLAP)))
    mirrored = 2 ** len(trainer.inference_allowed_mirroring_axes or ()) if mirroring else 1
    trainer.set_deep_supervision_enabled(False)
    network = trainer.network.eval()
    window = next(trainer.dataloader_val)["data"][:1].to(trainer.device)
    times = []
    with torch.inference_mode(), torch.autocast(trainer.device.type, enabled=trainer.device.type == "cuda"):
        for _ in range(3):  # the first compiles, and chooses the fastest convolutions
            start = time.perf_counter()
            network(window).sum().item()  # waits for a GPU
            times.append(time.perf_counter() - start)
    return windows * mirrored * min(times)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the temporary folder is removed
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("dataset", "configuration", "fold"):
        parser.add_argument(name)
    for option, name in (("-tr", "trainer"), ("-p", "plans"), ("-device", "device")):
        parser.add_argument(option, dest=name, required=True)
    parser.add_argument("--disable_tta", action="store_true", help="as of nnUNetv2_predict")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results  # noqa: SIM112 (nnU-Net's variable)
        import torch
        from nnunetv2.run.run_training import get_trainer_from_args

        # as nnUNetv2_train
        torch.set_num_threads((os.cpu_count() or 1) if args.device == "cpu" else 1)
        torch.backends.cudnn.benchmark = args.device == "cuda"
        fold = args.fold if args.fold == "all" else int(args.fold)
        device = torch.device(args.device)
        trainer = get_trainer_from_args(args.dataset, args.configuration, fold, args.trainer, args.plans, device=device)
        try:
            training, case = time_training(trainer, args.seconds), time_prediction(trainer, not args.disable_tta)
            print(
                f"The training is expected to take {training:.0f} s, the prediction of a case {case:.2f} s", flush=True
            )
        finally:
            finish_loaders(trainer.dataloader_train, trainer.dataloader_val)


if __name__ == "__main__":
    main()
