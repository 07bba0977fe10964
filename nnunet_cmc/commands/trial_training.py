"""Train for some seconds, to estimate how long a training that nothing is known about will take.

``python -m nnunet_cmc.commands.trial_training`` with the arguments of nnUNetv2_train, in a process of its own, since
nnU-Net reads its folders when it is imported: what the training writes goes to a temporary folder of results.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable
from statistics import median

EXPECTED = re.compile(r"The training is expected to take (\d+) s")
SECONDS = 10.0


def expected_seconds(trainer, seconds: float = SECONDS) -> float:
    """Estimate the seconds of all epochs from some iterations of training and of validation, without the first.

    Args:
        trainer: nnU-Net's or ours, just created; it has then trained a little.
        seconds: for iterations of training; a fifth of them for those of validation. Of each, two are run at least.
    """
    import torch

    def iteration(step: Callable, loader, seconds: float) -> float:
        def timed() -> float:
            start = time.perf_counter()
            step(next(loader))  # returns when a GPU has finished, since nnU-Net copies the loss to the host
            return time.perf_counter() - start

        timed()  # compiles, and chooses the fastest convolutions
        end = time.monotonic() + seconds
        times = [timed()]
        while time.monotonic() < end:
            times.append(timed())
        return median(times)

    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    epoch = trainer.num_iterations_per_epoch * iteration(trainer.train_step, trainer.dataloader_train, seconds)
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        validation = iteration(trainer.validation_step, trainer.dataloader_val, seconds / 5)
        epoch += trainer.num_val_iterations_per_epoch * validation
    return trainer.num_epochs * epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("dataset", "configuration", "fold"):
        parser.add_argument(name)
    for option, name in (("-tr", "trainer"), ("-p", "plans"), ("-device", "device")):
        parser.add_argument(option, dest=name, required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results  # noqa: SIM112 (nnU-Net's variable)
        import torch
        from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
        from nnunetv2.run.run_training import get_trainer_from_args

        fold = args.fold if args.fold == "all" else int(args.fold)
        device = torch.device(args.device)
        if device.type == "cpu":
            torch.set_num_threads(os.cpu_count() or 1)  # as nnUNetv2_train
        trainer = get_trainer_from_args(args.dataset, args.configuration, fold, args.trainer, args.plans, device=device)
        print(f"The training is expected to take {expected_seconds(trainer, args.seconds):.0f} s", flush=True)
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            if isinstance(loader, NonDetMultiThreadedAugmenter):
                loader._finish()  # ended at exit, its processes would raise an error in a thread


if __name__ == "__main__":
    main()
