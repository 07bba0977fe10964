"""The terms of the loss, one a file; a recipe names them with their weights."""

from nnunet_cmc.trainers.terms.area_similarity_term import AreaSimilarity
from nnunet_cmc.trainers.terms.auxiliary_term import AuxiliarySupervised
from nnunet_cmc.trainers.terms.cac_term import CAC
from nnunet_cmc.trainers.terms.class_balanced_term import ClassBalanced
from nnunet_cmc.trainers.terms.cps_term import CPS, PeerSupervised
from nnunet_cmc.trainers.terms.csc_term import CSC
from nnunet_cmc.trainers.terms.discounted_term import Discounted
from nnunet_cmc.trainers.terms.distillation_term import Distillation
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting, Term
from nnunet_cmc.trainers.terms.pseudo_term import Pseudo
from nnunet_cmc.trainers.terms.relearning_term import Relearning
from nnunet_cmc.trainers.terms.semantic_term import SemanticConsistency
from nnunet_cmc.trainers.terms.supervised_term import Supervised

__all__ = [
    "CAC",
    "CPS",
    "CSC",
    "AreaSimilarity",
    "AuxiliarySupervised",
    "ClassBalanced",
    "Discounted",
    "Distillation",
    "LossTerm",
    "PeerSupervised",
    "Pseudo",
    "Relearning",
    "SemanticConsistency",
    "Setting",
    "Supervised",
    "Term",
]
