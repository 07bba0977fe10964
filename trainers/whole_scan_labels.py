"""When whole scans get pseudo-labels, and how many of them a batch has: a part of a recipe."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WholeScanLabels:
    """Predict pseudo-labels of whole unlabelled scans from all their modalities, and train on them from then on.

    The moving average of the weights predicts them: while the learning rate is high, it is better than the weights of
    any one step (Izmailov et al., UAI 2018). Each round replaces the pseudo-labels, and the training continues with the
    same network; the winner of FLARE22 (Huang et al. 2022) and ST++ (Yang et al., CVPR 2022) train a new one. From the
    second round on, a scan is weighted by the stability of its pseudo-label, where these leave out
    the least stable scans; before, every scan weighs 1.

    Before the first round, unlabelled scans are not read. Afterwards their pairs replace labelled ones, so that the
    cost of a step does not change with two modalities.

    Attributes:
        at: fractions of the training after which a round is made, increasing.
        share: of the pairs of a batch that are pseudo-labelled; at least one labelled pair stays.

    Raises:
        ValueError: there is no round, they do not increase within 0 and 1, or the share is not between 0 and 1.
    """

    at: tuple[float, ...] = (0.7,)
    share: float = 0.5

    def __post_init__(self):
        if not self.at or any(before >= after for before, after in zip((0.0, *self.at), (*self.at, 1.0), strict=True)):
            raise ValueError(
                f"Rounds at {self.at} are not increasing fractions of a training: give one or more between 0 and 1."
            )
        if not 0 < self.share < 1:
            raise ValueError(f"A share {self.share} of a batch is impossible: give one between 0 and 1.")

    def rounds_before(self, epoch: int, epochs: int) -> int:
        """Return how many rounds are made before ``epoch`` of so many; each is at the start of the nearest epoch."""
        return sum(max(1, round(share * epochs)) <= epoch for share in self.at)
