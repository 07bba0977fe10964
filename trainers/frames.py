"""Two recipes from labelled scans alone, on which the others are built: what all of them have in common."""

from dataclasses import replace

from nnunet_cmc.data.loading.fusion import Alone, FusedAndSingle
from nnunet_cmc.networks.changes import PredictAlone, SeparateModalities, SuperviseDeep
from nnunet_cmc.trainers.optimizers import ByLength
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.terms import Supervised, Term

SUPERVISED = Term(Supervised)
# One network, most of which the modalities share.
SHARED = Recipe(
    "from labelled scans alone, with one network that the modalities share",
    (SUPERVISED,),
    (SuperviseDeep(),),
    fusion=FusedAndSingle(),
    unlabeled_share=0.5,
    mirrored_axes=(0, 1, 2),
    optimizer=ByLength(),
)
# A network of each modality; nothing is fused but their predictions.
APART = replace(
    SHARED,
    purpose="a network of each modality, from labelled scans alone: the paper's Sup",
    network=(SeparateModalities(), PredictAlone(), SuperviseDeep()),
    fusion=Alone(),
    unlabeled_share=1.0,
)
