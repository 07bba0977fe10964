"""The terms of the loss, one a file; a recipe names them with their weights."""

from nnunet_cmc.trainers.terms.auxiliary_term import AuxiliarySupervised
from nnunet_cmc.trainers.terms.cac_term import CAC
from nnunet_cmc.trainers.terms.csc_term import CSC
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting, Term
from nnunet_cmc.trainers.terms.pseudo_term import Pseudo
from nnunet_cmc.trainers.terms.supervised_term import Supervised

__all__ = ["CAC", "CSC", "AuxiliarySupervised", "LossTerm", "Pseudo", "Setting", "Supervised", "Term"]
