"""Recipes of the systems that the paper compares with, and of others of today, on the same frame.

Each is re-implemented from its description: on the plans' U-Net, with nnU-Net's augmentation, this package's loaders
and the optimizer of ``CMCTrainer``. So a comparison is one of methods.
"""

from dataclasses import replace

from nnunet_cmc.data.loading.views import StrongView
from nnunet_cmc.losses.schedules import GAMMA, RAMP_UP
from nnunet_cmc.networks.changes import WithPeer
from nnunet_cmc.trainers.frames import APART, SHARED, SUPERVISED
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.trainers.terms import CPS, PeerSupervised, Pseudo, Term
from nnunet_cmc.trainers.whole_scan_labels import WholeScanLabels

COMPARED: dict[str, Recipe] = {
    "SupTrainer": APART,
    "MeanTeacherTrainer": replace(
        SHARED,
        purpose="a mean teacher (Tarvainen & Valpola 2017): CMCTrainer without CSC, CAC and random contrasts",
        terms=(SUPERVISED, Term(Pseudo, GAMMA)),
        views=(StrongView(),),
        teacher=Teacher(),
    ),
    "CPSTrainer": replace(
        SHARED,
        purpose="cross pseudo supervision (Chen et al. 2021): two networks teach each other, and the first predicts",
        terms=(SUPERVISED, Term(PeerSupervised), Term(CPS, RAMP_UP)),
        network=(*SHARED.network, WithPeer()),
    ),
    "PseudoLabelTrainer": replace(
        SHARED,
        purpose="pseudo-labels of whole scans in two rounds; scans of unstable labels weigh less (after ST++, Yang et "
        "al. 2022)",
        terms=(SUPERVISED, Term(Pseudo)),
        whole_scan_labels=WholeScanLabels((1 / 3, 2 / 3)),
    ),
}
