"""CMCTrainer for fewer epochs, named as nnU-Net names its own."""

from nnunet_cmc.trainers.old.cmc_trainer import CMCTrainer


class CMCTrainer_smoke(CMCTrainer):
    """One epoch of 4 training and 2 validation iterations: does everything run?"""

    epochs = 1
    iterations = (4, 2)


class CMCTrainer_demo(CMCTrainer):
    """400 iterations: minutes on a CPU with CMCPlannerTiny."""

    epochs = 10
    iterations = (40, 4)


class CMCTrainer_5epochs(CMCTrainer):
    epochs = 5


class CMCTrainer_10epochs(CMCTrainer):
    epochs = 10


class CMCTrainer_20epochs(CMCTrainer):
    epochs = 20


class CMCTrainer_50epochs(CMCTrainer):
    epochs = 50


class CMCTrainer_100epochs(CMCTrainer):
    epochs = 100


class CMCTrainer_250epochs(CMCTrainer):
    epochs = 250
