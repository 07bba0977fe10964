"""What the log says of the rows of a step and of their pseudo-labels."""

import pytest
import torch

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.trainers.batch_statistics import pseudo_foreground, shown


def batch_of(fusion, pseudo_targets, labeled: int) -> Batch:
    rows, modalities = fusion.shape[:2]
    nothing = torch.zeros(0)
    data = torch.ones(rows, modalities, 2, 2, 2)
    return Batch(data, torch.zeros(labeled, 1, 2, 2, 2), fusion, nothing, nothing, pseudo_targets=pseudo_targets)


def test_rows_and_foreground_by_modality():
    """Labelled: CT fused with MR and alone, a row of MR; unlabelled: both by themselves, and a row of MR."""
    fusion = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [0, 1]], [[1, 0], [0, 1]], [[0, 0], [0, 1]]], dtype=torch.bool)
    fusion[0, 0, 0] = True
    labels = torch.zeros(2, 1, 2, 2, 2, dtype=torch.int16)
    labels[0, 0, 0] = 2  # half of the voxels; 3 is no class but "not sure"
    labels[1] = 3
    labels[1, 0, 0, 0, 0] = 1
    batch = batch_of(fusion, labels, labeled=2)
    assert {name: int(count) for name, count in shown(batch, ("CT", "MR")).items()} == {
        "shown/CT fused": 1, "shown/CT alone": 1, "shown/CT unlabelled": 1,
        "shown/MR fused": 1, "shown/MR alone": 1, "shown/MR unlabelled": 2,
    }  # fmt: skip
    three = torch.zeros(1, 3, 3, dtype=torch.bool)
    three[0, 0] = three[0, 1, 1] = True  # the third is fused with the others, and not predicted by itself
    counts = shown(batch_of(three, labels[:0], labeled=1), ("CT", "MR", "PET"))
    assert {name: int(count) for name, count in counts.items() if count} == {
        "shown/CT fused": 1, "shown/MR fused": 1, "shown/PET fused": 1, "shown/MR alone": 1,
    }  # fmt: skip
    shares = {name: float(share) for name, share in pseudo_foreground(batch, ("CT", "MR"), 3).items()}
    assert shares == pytest.approx({"pseudo_foreground/CT": 0.5, "pseudo_foreground/MR": (0.5 + 0.125) / 2})
    nothing = pseudo_foreground(batch_of(fusion[:2], labels[:0], labeled=2), ("CT", "MR"), 3)
    assert all(share.isnan() for share in nothing.values())
