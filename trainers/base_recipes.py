"""Two recipes from labelled scans alone, on which the others are built."""

from dataclasses import replace

from nnunet_cmc.data.loading.fusion import Alone, FusedAndPart
from nnunet_cmc.networks.changes import PredictAlone, SeparateModalities, SuperviseDeep
from nnunet_cmc.trainers.optimizers import ByLength
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.terms import Supervised, Term

SUPERVISED = Term(Supervised)
# One network, most of it shared by the modalities.
SHARED = Recipe(
    "from labelled scans alone, with one network for all modalities",
    (SUPERVISED,),
    (SuperviseDeep(),),
    fusion=FusedAndPart(),
    unlabeled_share=0.5,
    mirrored_axes=(0, 1, 2),
    optimizer=ByLength(),
)
# A network for each modality; only their predictions are combined.
APART = replace(
    SHARED,
    purpose="a network for each modality, from labelled scans alone: the paper's Sup",
    network=(SeparateModalities(), PredictAlone(), SuperviseDeep()),
    fusion=Alone(),
    unlabeled_share=1.0,
)
