"""Trainers whose length is set by two environment variables, to compare methods at an equal budget.

``nnUNetTrainer_cmcbudget`` is nnU-Net's own trainer with a budget; any trainer of ours takes the suffix ``_cmcbudget``.

``NNUNET_CMC_EPOCHS``      number of epochs
``NNUNET_CMC_ITERATIONS``  number of training iterations (optimizer steps) in each epoch

Besides, on a CPU they use as many threads as ``OMP_NUM_THREADS`` says, if it is set. ``nnUNetv2_train`` overrides the
variable and takes all cores, so that runs could not share a machine. The number of threads changes the speed and the
order of summation (the last bits of a result), nothing else.
"""

import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

EPOCHS = "NNUNET_CMC_EPOCHS"
ITERATIONS = "NNUNET_CMC_ITERATIONS"


class Budget:
    """Mixin for a trainer: the number of epochs and of iterations per epoch come from the environment.

    One validation iteration is run per five training iterations, which is nnU-Net's own proportion (50 to 250), at most
    the trainer's own number and at least one. They contribute no gradient, but choose ``checkpoint_best`` and, in our
    trainers, set the weight of each modality: Dice on validation cases is slightly optimistic where modalities are
    combined. Test cases are never used.

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
    """The stock nnU-Net trainer except for its numbers of epochs and iterations.

    On a CPU also except for its number of threads, if ``OMP_NUM_THREADS`` is set (see above).
    """
