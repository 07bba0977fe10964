"""Rigid misalignment of a scan, as if the patient had moved between two modalities."""

import numpy as np
import SimpleITK as sitk


def random_direction(*entropy: int) -> np.ndarray:
    """Draw a unit vector ``(3,)``, uniform over all directions; a pure function of ``entropy``."""
    vector = np.random.default_rng(entropy).normal(size=3)
    return vector / np.linalg.norm(vector)


def misalign(scan: sitk.Image, direction: np.ndarray, millimetres: float = 0.0, degrees: float = 0.0) -> sitk.Image:
    """Move the scan's content along ``direction``, or rotate it about an axis along it through the scan's centre.

    The result lies on the scan's own grid (linear interpolation); what comes in from outside has its lowest value.

    Args:
        direction: unit vector in the patient's coordinates (x to the left, y to the back, z to the head).
        millimetres, degrees: how far; a rotation of positive degrees is right-handed.
    """
    centre = scan.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in scan.GetSize()])
    transform = sitk.VersorRigid3DTransform()
    transform.SetCenter(centre)
    transform.SetRotation(direction.tolist(), np.deg2rad(degrees))
    transform.SetTranslation((millimetres * direction).tolist())
    lowest = float(sitk.GetArrayViewFromImage(scan).min())
    # Resampling asks where each voxel of the result comes from.
    return sitk.Resample(scan, scan, transform.GetInverse(), sitk.sitkLinear, lowest)
