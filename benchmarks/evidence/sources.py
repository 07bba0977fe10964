"""The two sets of scans that the evidence is gathered on."""

from dataclasses import dataclass, field

ARRANGEMENTS = ("registered", "unpaired", "misaligned")


@dataclass(frozen=True)
class Source:
    """Scans of subjects in two modalities on one grid, in folders ``images_MODALITY`` and ``labels``, and a split.json.

    Attributes:
        name: as records call it.
        modalities: the labels are drawn on the first.
        classes: name -> value in the labels, without gaps: the converter would close them.
        labeled: fraction of labels -> labelled subjects; the largest are all that may be labelled.
        validation: that many subjects.
        folds: of test subjects, one a seed; with one fold all seeds test on the same subjects.
        first_id: nnU-Net's number of its first dataset.
    """

    name: str
    modalities: tuple[str, str]
    labeled: dict[float, int] = field(hash=False)
    validation: int = field(hash=False)
    folds: int
    classes: dict[str, int] = field(hash=False)
    first_id: int

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """What a model may be given: channels by name."""
        first, second = self.modalities
        return {first: (0,), second: (1,), "both": (0, 1)}

    @property
    def moved(self) -> str:
        """Name of the second modality where it is out of place."""
        return f"moved_{self.modalities[1]}"

    @property
    def datasets(self) -> dict[str, int]:
        """Each dataset's number in nnU-Net. Ours and nnU-Net's have their own, since both write a fingerprint."""
        names = ("registered", "unpaired", "misaligned", "stock_registered", "stock_unpaired", "stock_misaligned",
                 *self.modalities, self.moved)  # fmt: skip
        names += tuple(
            f"pseudo{n}_{arrangement}_{channels}"
            for n in (1, 2)
            for arrangement in ARRANGEMENTS
            for channels in ("both", *self.modalities)
        )
        return {name: self.first_id + number for number, name in enumerate(names)}


LGG = Source("lgg", ("FLAIR", "T1post"), {0.1: 8, 0.2: 16, 1.0: 72}, 8, 5, {"tumour": 1}, 911)
# What is smaller than a voxel of the short runs (prostate, bladder, adrenals, ...) is left out.
AMOS = Source(
    "amos_synthetic", ("CT", "MR"), {0.1: 2, 0.2: 4, 1.0: 20}, 4, 1,
    {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "liver": 4, "stomach": 5, "aorta": 6}, 941,
)  # fmt: skip
SOURCES = {source.name: source for source in (LGG, AMOS)}
