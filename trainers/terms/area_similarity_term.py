"""CML's area-similarity contrast between the predictions of modalities, over all pairs of a batch."""

from types import MappingProxyType

from nnunet_cmc.trainers.terms.cac_term import CAC


class AreaSimilarity(CAC):
    """CML's contrast of labelled and unlabelled pairs (Zhang et al., Medical Image Analysis 83, 102656, 2023).

    ``S_jk = softDice(p^a_j, p^b_k) / tau``, symmetric cross-entropy over the batch with the same case as positive pair:
    CAC without the Dice of a case with itself, so a batch of one registered pair has no gradient. Re-implemented from
    the description. Ours: tau 0.5, since patches of two cases hardly overlap, so that at 0.1 the loss vanishes long
    before the predictions of one case agree; the Dice is over the cells of CAC's grid and the classes that a prediction
    shows; and, for scans that share no grid, the unpaired form of CAC, by classes.
    """

    name = "area_similarity"
    options = MappingProxyType({"temperature": 0.5, "dice": False})
    labeled = True
