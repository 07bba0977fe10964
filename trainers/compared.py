"""Recipes of the systems that the paper compares with, and of others of today, on the same frame.

Each is re-implemented from its description: on the plans' U-Net, with nnU-Net's augmentation, this package's loaders
and the optimizer of ``CMCTrainer``. So a comparison is one of methods.
"""

from dataclasses import replace

from nnunet_cmc.data.loading.fusion import RandomSubset
from nnunet_cmc.data.loading.views import StrongView
from nnunet_cmc.losses.schedules import GAMMA
from nnunet_cmc.networks.changes import DecodeAlone, MMFormer, SuperviseDeep
from nnunet_cmc.trainers.frames import APART, SHARED, SUPERVISED
from nnunet_cmc.trainers.optimizers import AdamW
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.trainers.terms import AuxiliarySupervised, Pseudo, Term

COMPARED: dict[str, Recipe] = {
    "SupTrainer": APART,
    "MeanTeacherTrainer": replace(
        SHARED,
        purpose="a mean teacher (Tarvainen & Valpola 2017): CMCTrainer without CSC, CAC and random contrasts",
        terms=(SUPERVISED, Term(Pseudo, GAMMA)),
        views=(StrongView(),),
        teacher=Teacher(),
    ),
    "MMFormerTrainer": replace(
        SHARED,
        purpose="mmFormer (Zhang et al. 2022): transformers fuse random subsets of the modalities, from labelled scans "
        "alone",
        terms=(SUPERVISED, Term(AuxiliarySupervised)),
        network=(MMFormer(), SuperviseDeep(), DecodeAlone()),
        fusion=RandomSubset(),
        optimizer=AdamW(),  # the authors' is Adam
    ),
}
