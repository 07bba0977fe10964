"""Semi-supervision beyond the paper: the mean teacher's student sees labelled anatomy within unlabelled scans.

Labels come from few scans, pseudo-labels from many, and a network can tell the two kinds apart. Where a part of a
labelled scan lies in an unlabelled one, it cannot, and what it learned of the label goes over (bidirectional
copy-paste, Bai et al., CVPR 2023; here one way, labelled into unlabelled).
"""

import torch
from torch import Tensor

from nnunet_cmc.data.copy_paste import CopyPasteLoader
from nnunet_cmc.trainers.old.mean_teacher import CMCTrainerMeanTeacher


class CMCTrainerCopyPaste(CMCTrainerMeanTeacher):
    """CMCTrainerMeanTeacher whose strong views hold a cuboid of a labelled scan, with its true label."""

    pair_loader = CopyPasteLoader

    def taught(self, batch: dict, labels: Tensor) -> Tensor:
        """The true label where there is one, the teacher's elsewhere."""
        pasted = batch["pasted"].to(labels.device, non_blocking=True)
        return torch.where(pasted < 0, labels, pasted)
