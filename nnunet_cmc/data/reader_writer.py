"""How volumes are read and label maps are written, for nnU-Net's commands and for ours."""

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

from nnunet_cmc.data.files import atomic_write
from nnunet_cmc.data.voxels import read_written


class CMCReaderWriter(SimpleITKIOWithReorient):
    """nnU-Net's on canonical axes, but a label map appears whole or not at all.

    nnU-Net's writer does not notice a full disk, and ``nnUNetv2_predict --continue_prediction`` takes half a file for
    a finished case.
    """

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> sitk.Image:
        """Write ``seg (D, H, W)`` on the input's own grid, and return it as read again. OSError if it cannot be."""
        with atomic_write(output_fname) as file:
            super().write_seg(seg, str(file), properties)
            return read_written(file)
