"""The terms of the loss, one a file; a recipe names them with their weights."""

from nnunet_cmc.trainers.terms.cac import CAC
from nnunet_cmc.trainers.terms.csc import CSC
from nnunet_cmc.trainers.terms.pseudo import Pseudo
from nnunet_cmc.trainers.terms.supervised import Supervised
from nnunet_cmc.trainers.terms.term import LossTerm, Setting, Term

__all__ = ["CAC", "CSC", "LossTerm", "Pseudo", "Setting", "Supervised", "Term"]
