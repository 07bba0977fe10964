"""Reader of volumes and writer of label maps for nnU-Net's commands and ours."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

from nnunet_cmc.data.reading.voxels import NOT_WRITTEN, read_image
from nnunet_cmc.utils.files import all_written, atomic_write


class CMCReaderWriter(SimpleITKIOWithReorient):
    """nnU-Net's reader and writer on canonical axes, with two differences.

    A truncated volume is refused and NaN stays NaN, where ITK reads zeros. A label map is written atomically: nnU-Net's
    writer does not notice a full disk, and ``nnUNetv2_predict --continue_prediction`` treats a truncated file as a
    finished case.
    """

    def read_images(self, image_fnames: Sequence[str], orientation: str = "RAS") -> tuple[np.ndarray, dict]:
        """Read volumes of one grid as ``(M, D, H, W)`` float32 and the properties that nnU-Net keeps of a case.

        ValueError: a file cannot be read or is shorter than its header says, or the shapes differ.
        """
        images = [read_image(file) for file in image_fnames]
        original = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(images[0].GetDirection())
        images = [sitk.DICOMOrient(image, orientation) for image in images]
        geometry = {key: getattr(images[0], f"Get{key.capitalize()}")() for key in ("spacing", "origin", "direction")}
        properties = {
            "sitk_stuff": {**geometry, "original_orientation": original},
            "spacing": [abs(step) for step in geometry["spacing"][::-1]],
        }
        return np.stack([sitk.GetArrayViewFromImage(i) for i in images], dtype=np.float32, casting="unsafe"), properties

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> sitk.Image:
        """Write ``seg (D, H, W)`` on the input's grid, and return it as read back. OSError if it cannot be written."""
        with atomic_write(output_fname) as file, all_written(file, *NOT_WRITTEN):
            super().write_seg(seg, str(file), properties)
            return read_image(file)
