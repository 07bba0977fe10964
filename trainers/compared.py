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
from nnunet_cmc.trainers.base_recipes import APART, SHARED, SUPERVISED
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
    "SupTrainer": replace(
        APART,
        differences="From the paper: a network for each modality, Dice + CE. Ours: deep supervision, and predictions "
        "of several modalities averaged with weights from validation Dice; the network is that of the plans, V-Net "
        "with CMCPlannerVNet.",
    ),
    "EFCDTrainer": replace(
        APART,
        purpose="EFCD (Huang et al. 2022), from labelled registered scans: the evidence of each modality, discounted "
        "by its learned reliability for each class, is combined by Dempster's rule",
        differences="From the paper: prototypes and mass functions, a reliability of each modality and class that is "
        "learned, Dempster's rule, Dice of the combination. Ours: a supervised loss beside it that is the mean over "
        "modalities instead of the sum, Dice of the foreground classes, predictions at coarser resolutions that are "
        "not combined, prototypes' memberships that are a softmax, and absent modalities that are left out.",
        terms=(SUPERVISED, Term(Discounted)),
        network=(*APART.network, Evidential()),
    ),
    "MeanTeacherTrainer": replace(
        SHARED,
        purpose="a mean teacher (Tarvainen & Valpola 2017): CMCTrainer_contrastTeacher without CSC, CAC and random "
        "contrasts",
        differences="From the paper: the student follows the prediction of a moving average of its weights on another "
        "view of the scan. Ours: Dice + CE with its confident labels in place of the squared distance of all "
        "probabilities, and a weight that starts after a fifth of the training.",
        terms=(SUPERVISED, Term(Pseudo, GAMMA)),
        views=(StrongView(),),
        teacher=Teacher(),
    ),
    "MMFormerTrainer": replace(
        SHARED,
        purpose="mmFormer (Zhang et al. 2022): transformers fuse random subsets of the modalities, from labelled scans "
        "alone",
        differences="From the paper: an encoder for each modality, transformers within and between modalities, random "
        "subsets of modalities, a second decoder of each modality alone. Simplified: a 1^3 convolution of the "
        "concatenated maps in place of modules that weight the regions of classes, equal weights of classes, no "
        "dropout. Ours: encoders and decoders are those of the plans; absent modalities are masked in the attention; "
        "AdamW in place of Adam.",
        terms=(SUPERVISED, Term(AuxiliarySupervised)),
        network=(MMFormer(), SuperviseDeep(), DecodeAlone()),
        fusion=RandomSubset(),
        optimizer=AdamW(),
    ),
    "UMMLTrainer": replace(
        APART,
        purpose="UMML (Zhu et al. 2021): a network for each modality, semantic consistency under style transfer, "
        "class-balanced pseudo-labels",
        differences="From the paper: Dice + CE of scans and of their translations, KL divergence between the two, "
        "class-balanced pseudo-labels. Simplified: low-frequency amplitudes are swapped, in place of learned "
        "translators. Ours: a rising weight, the mean over modalities and directions in place of the sum, and half as "
        "many unlabelled pairs as labelled ones, since restyled rows double the batch.",
        terms=(SUPERVISED, Term(SemanticConsistency, RAMP), Term(ClassBalanced, RAMP)),
        views=(SwapStyles(),),
        unlabeled_share=0.5,
    ),
    "CMLTrainer": replace(
        APART,
        purpose="CML (Zhang et al. 2023): a network for each modality, contrastive loss between their predictions; in "
        "the second half the better modality pseudo-labels registered unlabelled scans for the others",
        differences="From the paper: the contrast of areas, and labels of the better modality for the others. Ours: "
        "both weights, one constant and one rising; temperature 0.5 in place of 0.1; Dice over the cells of a grid; "
        "the better modality is that of validation Dice; the form by classes for unpaired scans.",
        terms=(SUPERVISED, Term(AreaSimilarity, DELTA), Term(Relearning, OMEGA)),
    ),
    "UMMKDTrainer": replace(
        SHARED,
        purpose="UMMKD (Dou et al. 2020): shared convolutions, a first stage and norms for each modality, distillation "
        "between modalities by class, from labelled scans alone",
        differences="From the paper: shared convolutions, the distillation and its temperature. Ours: the first stage, "
        "too, is a modality's own; instance norms with a scale and shift for each modality, in the decoder as well, "
        "in place of batch norms; classes that a batch shows in one modality only are left out.",
        terms=(SUPERVISED, Term(Distillation, KAPPA)),
        network=(*SHARED.network, OwnDecoderNorms(), PredictAlone()),
        fusion=Alone(),
    ),
    "CPSTrainer": replace(
        SHARED,
        purpose="cross pseudo supervision (Chen et al. 2021): two networks learn from each other's pseudo-labels, "
        "and the first predicts",
        differences="From the paper: each network learns the classes that the other predicts, at all voxels of "
        "labelled and unlabelled scans. Ours: Dice + CE in place of CE, at every resolution and for each modality, "
        "and a rising weight.",
        terms=(SUPERVISED, Term(PeerSupervised), Term(CPS, LAMBDA)),
        network=(*SHARED.network, WithPeer()),
    ),
    "PseudoLabelTrainer": replace(
        SHARED,
        purpose="pseudo-labels of whole scans in two rounds; scans with unstable pseudo-labels weigh less (after ST++, "
        "Yang et al. 2022)",
        differences="From ST++: two rounds, and the stability of a scan's pseudo-label over a training. Ours: the "
        "moving average of the weights labels, stability is the Dice of the two rounds instead of that of several "
        "checkpoints, one network goes on instead of being trained anew, and unstable scans weigh less instead of "
        "being left out at first.",
        terms=(SUPERVISED, Term(Pseudo)),
        whole_scan_labels=WholeScanLabels((1 / 3, 2 / 3)),
    ),
}
