"""Recipes of the systems that the paper compares with, and of recent ones, on a common basis.

Each is re-implemented from its description: on the network of the plans, with nnU-Net's augmentation, this package's
loaders and, except for mmFormer, the optimizer of ``CMCTrainer``, so that only the methods differ.
"""

from dataclasses import replace

from nnunet_cmc.data.loading.fusion import Alone, RandomSubset
from nnunet_cmc.data.loading.style import SwapStyles
from nnunet_cmc.data.loading.views import StrongView
from nnunet_cmc.losses.schedules import DELTA, GAMMA, KAPPA, LAMBDA, OMEGA, RAMP
from nnunet_cmc.networks.changes import (
    DecodeAlone,
    Evidential,
    MMFormer,
    OwnDecoderNorms,
    PredictAlone,
    SuperviseDeep,
    WithPeer,
)
from nnunet_cmc.trainers.frames import APART, SHARED, SUPERVISED
from nnunet_cmc.trainers.optimizers import AdamW
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.trainers.terms import (
    CPS,
    AreaSimilarity,
    AuxiliarySupervised,
    ClassBalanced,
    Discounted,
    Distillation,
    PeerSupervised,
    Pseudo,
    Relearning,
    SemanticConsistency,
    Term,
)
from nnunet_cmc.trainers.whole_scan_labels import WholeScanLabels

COMPARED: dict[str, Recipe] = {
    # From the paper: a network for each modality, Dice + CE. Ours: deep supervision, and predictions of several
    # modalities averaged with weights from validation Dice.
    "SupTrainer": APART,
    "EFCDTrainer": replace(
        APART,
        purpose="EFCD (Huang et al. 2022), from labelled registered scans: the evidence of each modality, discounted "
        "by its learned reliability for each class, is combined by Dempster's rule",
        terms=(SUPERVISED, Term(Discounted)),
        network=(*APART.network, Evidential()),
    ),
    # From the paper: the student follows the prediction of a moving average of its weights on another view of the scan.
    # Ours: Dice + CE with its confident labels, in place of the squared distance of all probabilities, and a weight
    # that starts after a fifth of the training.
    "MeanTeacherTrainer": replace(
        SHARED,
        purpose="a mean teacher (Tarvainen & Valpola 2017): CMCTrainer_contrastTeacher without CSC, CAC and random "
        "contrasts",
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
    # From the paper: a network of each modality, Dice + CE of scans and of their translations, KL between the two,
    # class-balanced pseudo-labels. Simplified: swapped amplitudes in place of learned translators, see SwapStyles.
    # Ours: the ramp w(t), the mean over modalities and directions in place of the sum, and half as many unlabelled
    # pairs as labelled ones, since restyled rows double the batch.
    "UMMLTrainer": replace(
        APART,
        purpose="UMML (Zhu et al. 2021): a network for each modality, semantic consistency under style transfer, "
        "class-balanced pseudo-labels",
        terms=(SUPERVISED, Term(SemanticConsistency, RAMP), Term(ClassBalanced, RAMP)),
        views=(SwapStyles(),),
        unlabeled_share=0.5,
    ),
    # Ours: the weights, constant and rising; see the terms.
    "CMLTrainer": replace(
        APART,
        purpose="CML (Zhang et al. 2023): a network for each modality, contrastive loss between their predictions; in "
        "the second half the better modality pseudo-labels registered unlabelled scans for the others",
        terms=(SUPERVISED, Term(AreaSimilarity, DELTA), Term(Relearning, OMEGA)),
    ),
    # The paper shares all convolutions and has batch norms of each modality. Here the first stage, too, is a modality's
    # own, and norms are the plans' instance norms, of which each modality has scale and shift, in the decoder as well.
    "UMMKDTrainer": replace(
        SHARED,
        purpose="UMMKD (Dou et al. 2020): shared convolutions, a first stage and norms for each modality, distillation "
        "between modalities by class, from labelled scans alone",
        terms=(SUPERVISED, Term(Distillation, KAPPA)),
        network=(*SHARED.network, OwnDecoderNorms(), PredictAlone()),
        fusion=Alone(),
    ),
    "CPSTrainer": replace(
        SHARED,
        purpose="cross pseudo supervision (Chen et al. 2021): two networks learn from each other's pseudo-labels, "
        "and the first predicts",
        terms=(SUPERVISED, Term(PeerSupervised), Term(CPS, LAMBDA)),
        network=(*SHARED.network, WithPeer()),
    ),
    "PseudoLabelTrainer": replace(
        SHARED,
        purpose="pseudo-labels of whole scans in two rounds; scans with unstable pseudo-labels weigh less (after ST++, "
        "Yang et al. 2022)",
        terms=(SUPERVISED, Term(Pseudo)),
        whole_scan_labels=WholeScanLabels((1 / 3, 2 / 3)),
    ),
}
