"""Trainers that run as long as two environment variables say, so that methods can be compared at an equal budget.

``nnUNetTrainer_cmcbudget`` is nnU-Net's own trainer, and every trainer of ours has such a form under its name with
``_cmcbudget`` at the end, made when it is asked for.

``NNUNET_CMC_EPOCHS``      number of epochs
``NNUNET_CMC_ITERATIONS``  number of training iterations (optimizer steps) in each epoch

One thing beside the budget is not nnU-Net's: where ``OMP_NUM_THREADS`` is set and the device is a CPU, they compute
with that many threads. ``nnUNetv2_train`` overrides the variable and takes all cores, so that runs could not share a
machine. It changes the speed, and the order in which numbers are added (the last bits of a result); nothing else.
"""

import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

EPOCHS = "NNUNET_CMC_EPOCHS"
ITERATIONS = "NNUNET_CMC_ITERATIONS"


class Budget:
    """Mixin for a trainer: the number of epochs and of iterations per epoch come from the environment.

    One validation iteration is run per five training iterations, which is nnU-Net's own proportion (50 to 250), at most
    the trainer's own number and at least one. No gradient comes from them, but they choose ``checkpoint_best`` and, in
    our trainers, calibrate how much each modality is believed: Dice on validation cases is slightly optimistic where
    modalities are combined. Test cases are never used.
    The number of threads on a CPU is that of ``OMP_NUM_THREADS``, if it is set.

    Raises ValueError if one of the variables is unset or no positive integer.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature, which it inspects)
    ):
        epochs, iterations = _positive_integer(EPOCHS), _positive_integer(ITERATIONS)
        super().__init__(plans, configuration, fold, dataset_json, device)  # type: ignore[call-arg]
        threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # of the outermost level
        if device.type == "cpu" and threads.isdecimal():
            torch.set_num_threads(max(1, int(threads)))
        self.num_epochs = epochs
        self.num_iterations_per_epoch = iterations
        self.num_val_iterations_per_epoch: int = min(self.num_val_iterations_per_epoch, max(1, iterations // 5))


def _positive_integer(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal() or int(value) == 0:
        found = f"is '{value}'" if value else "is not set"
        raise ValueError(
            f"The environment variable {variable} {found}, but a trainer with a budget needs a positive integer: "
            f"set {EPOCHS} and {ITERATIONS}, for example export {variable}=50."
        )
    return int(value)


class nnUNetTrainer_cmcbudget(Budget, nnUNetTrainer):
    """The stock nnU-Net trainer in everything but its numbers of epochs and iterations.

    And, on a CPU, in how many threads compute, if ``OMP_NUM_THREADS`` says (see above); unset it for nnU-Net's own.
    """
