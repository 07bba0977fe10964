"""Recipes of the systems that the paper compares with, and of others of today, on the same frame.

Each is re-implemented from its description: on the plans' U-Net, with nnU-Net's augmentation, this package's loaders
and the optimizer of ``CMCTrainer``. So a comparison is one of methods.
"""

from dataclasses import replace

from nnunet_cmc.data.loading.fusion import Alone
from nnunet_cmc.data.loading.views import StrongView
from nnunet_cmc.losses.schedules import DELTA, GAMMA, KAPPA, OMEGA
from nnunet_cmc.networks.changes import OwnDecoderNorms, PredictAlone
from nnunet_cmc.trainers.frames import APART, SHARED, SUPERVISED
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.trainers.terms import AreaSimilarity, Distillation, Pseudo, Relearning, Term

COMPARED: dict[str, Recipe] = {
    "SupTrainer": APART,
    "MeanTeacherTrainer": replace(
        SHARED,
        purpose="a mean teacher (Tarvainen & Valpola 2017): CMCTrainer without CSC, CAC and random contrasts",
        terms=(SUPERVISED, Term(Pseudo, GAMMA)),
        views=(StrongView(),),
        teacher=Teacher(),
    ),
    # Ours: the weights, constant and rising; see the terms.
    "CMLTrainer": replace(
        APART,
        purpose="CML (Zhang et al. 2023): a network of each modality, whose predictions are contrasted; in the second "
        "half the better modality teaches the others on registered unlabelled scans",
        terms=(SUPERVISED, Term(AreaSimilarity, DELTA), Term(Relearning, OMEGA)),
    ),
    # The paper shares all convolutions and has batch norms of each modality. Here the first stage, too, is a modality's
    # own, and norms are the plans' instance norms, of which each modality has scale and shift, in the decoder as well.
    "UMMKDTrainer": replace(
        SHARED,
        purpose="UMMKD (Dou et al. 2020): shared convolutions, first stage and norms of each modality, distillation "
        "between modalities by class, from labelled scans alone",
        terms=(SUPERVISED, Term(Distillation, KAPPA)),
        network=(*SHARED.network, OwnDecoderNorms(), PredictAlone()),
        fusion=Alone(),
    ),
}
