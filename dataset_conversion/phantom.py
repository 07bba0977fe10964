"""Synthetic abdominal scans in two modalities, for the demo and the tests.

A phantom is a small child's abdomen: four labelled organs among tissues that resemble them, of varied size, place and
shape. "CT" is in HU, sharp and noisy; "MR" is T2-like, blurred across slices, with a bias field, Rician noise and gain.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

CLASSES = {"liver": 1, "spleen": 2, "kidneys": 3, "stomach": 4}
MODALITIES = ("CT", "MR")

# Mean intensity in CT (HU) and in MR (arbitrary units): each modality sees every organ, and neither all of them well.
TISSUES = {
    "air": (-1000, 0),
    "skin": (20, 110),
    "fat": (-100, 175),
    "muscle": (55, 60),
    "lung": (-800, 15),
    "bone": (350, 85),
    "fluid": (10, 340),
    "bowel": (25, 125),
    "vessel": (150, 25),
    "liver": (95, 90),
    "spleen": (140, 245),
    "kidneys": (205, 300),
    "stomach": (60, 310),
    "gas": (-900, 5),
}
INDEX = {tissue: index for index, tissue in enumerate(TISSUES)}


class Layout(NamedTuple):
    """How subjects were scanned.

    Attributes:
        scans: modalities of a subject, of one after the other.
        apart: whether each scan is on a grid of its own, with a label of its own.
    """

    scans: tuple[tuple[str, ...], ...]
    apart: bool = False


LAYOUTS = {
    "registered": Layout((MODALITIES,)),
    "misaligned": Layout((MODALITIES,), apart=True),
    "unpaired": Layout((("CT",), ("MR",)), apart=True),
    "missing": Layout((MODALITIES, ("CT",), ("MR",))),
}


def phantom(
    rng: np.random.Generator, size: Sequence[int] = (56, 56, 72), spacing: Sequence[float] = (2.5, 2.5, 2.5)
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Generate one subject on one grid.

    Args:
        rng: source of all variation between subjects.
        size: voxels along z, y, x; the body fills about 165 x 120 mm in x and y, and is cut by the ends of z.
        spacing: mm along z, y, x.

    Returns:
        ``labels`` (D, H, W) uint8 with the values of ``CLASSES``, and ``images``: "CT" (D, H, W) int16 in HU, at
        least -1024, and "MR" (D, H, W) int16, at least 1. Axes z, y, x run to superior, posterior and left.
    """
    tissues = _anatomy(rng, size, spacing)
    labels = np.zeros(tissues.shape, np.uint8)
    for name, value in CLASSES.items():
        labels[tissues == INDEX[name]] = value
    labels[tissues == INDEX["gas"]] = CLASSES["stomach"]
    return labels, {"CT": ct(rng, tissues, spacing), "MR": mr(rng, tissues, spacing)}


def generate(
    folder: str | Path,
    *,
    labeled: int,
    unlabeled: int = 0,
    test: int = 0,
    layout: str = "registered",
    spacing: Sequence[float] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write phantoms as folders of NIfTI files, ``train`` and, if there are ``test`` subjects, ``test``.

    ``registered``: every subject has CT and MR on one grid, and one label. ``misaligned``: each of the two is on a grid
    of its own, with its own label; MR lies elsewhere, lacks the lowest slice and is stored with two axes reversed.
    ``unpaired``: every subject has one such scan, CT and MR in turn. ``missing``: as registered, but two of three
    subjects have one scan.

    Args:
        labeled, unlabeled, test: number of subjects of each kind; unlabelled ones have no label file.
        layout: of the four above.
        spacing: mm along z, y, x; as a rule 2.5 each, or 2.4 to 2.6 in plane where scans have grids of their own, with
            slices of 3 mm (4 mm where there is MR alone).
        seed: of all subjects.

    Returns:
        the arguments of :func:`~nnunet_cmc.dataset_conversion.folders.convert_folders` for what was written.

    Raises:
        ValueError: the layout is unknown, it has too few labelled subjects, or the folder holds phantoms already.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"The layout of the phantoms must be one of {', '.join(LAYOUTS)}, but is {layout!r}.")
    scans_of, apart = LAYOUTS[layout]
    if labeled < len(scans_of):
        raise ValueError(
            f"Phantoms in the layout {layout} need {len(scans_of)} labelled subject(s), not {labeled}: ask for more."
        )
    root = Path(folder)
    if (root / "train").exists() or (root / "test").exists():
        raise ValueError(f"{root} holds phantoms already: delete them, or choose another folder.")
    kinds = ["train"] * labeled + ["unlabeled"] * unlabeled + ["test"] * test
    for number, kind in enumerate(kinds):
        part = root / ("test" if kind == "test" else "train")
        rng = np.random.default_rng([seed, number])  # a subject is the same, however many follow
        name = f"subject_{number + 1:03d}.nii.gz"
        _write_subject(part, name, rng, scans_of[number % len(scans_of)], apart, kind != "unlabeled", spacing)

    def sources(part: Path, prefix: str = "") -> dict[str, Any]:
        shown = [modality for modality in MODALITIES if (part / modality).is_dir()]
        labels = {m: part / f"labels_{m}" for m in shown} if apart else part / "labels"
        return {f"{prefix}images": {m: part / m for m in shown}, f"{prefix}labels": labels}

    return {"classes": CLASSES, **sources(root / "train"), **(sources(root / "test", "test_") if test else {})}


def _write_subject(
    part: Path,
    name: str,
    rng: np.random.Generator,
    scans: tuple[str, ...],
    apart: bool,
    labeled: bool,
    spacing: Sequence[float] | None,
) -> None:
    """Write a file ``name`` of each of the ``scans``, and of the labels, to folders of ``part``.

    Args:
        rng: source of all variation.
        apart: see :class:`Layout`.
        spacing: see :func:`generate`.
    """
    steps = spacing or (2.5, 2.5, 2.5)
    if apart and not spacing:
        in_plane = round(rng.uniform(2.4, 2.6), 2)
        steps = (3.0 if scans[0] == "CT" else 4.0, in_plane, in_plane)
    size = [round(length / step) for length, step in zip((140, 140, 180), steps, strict=True)]
    labels, images = phantom(rng, size, steps)
    for index, of_grid in enumerate([(modality,) for modality in scans] if apart else [scans]):
        origin = rng.uniform(-100, 100, 3).tolist()
        orientation = "RAS" if of_grid == ("MR",) else "LPS"
        for modality in of_grid:
            _write(images[modality][index:], part / modality / name, steps, origin, orientation)
        if labeled:
            target = part / (f"labels_{of_grid[0]}" if apart else "labels")
            _write(labels[index:], target / name, steps, origin, orientation)


def _anatomy(rng: np.random.Generator, size: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Draw the tissue of each voxel as its index, (D, H, W) uint8; coordinates are in mm, smoothly deformed."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(size, spacing, strict=True)]
    shift = rng.uniform(-4, 4, 3)
    z, y, x = (
        c + move + 3.0 * _smooth_noise(rng, size, spacing, 16)
        for c, move in zip(np.meshgrid(*axes, indexing="ij"), shift, strict=True)
    )

    def ellipsoid(centre: Sequence[float], radii: Sequence[float], tilt: float = 0.0) -> np.ndarray:
        """Compute a level set, below 0 inside; centre and radii in mm along x, y, z, varied; tilt shears x along z."""
        cx, cy, cz = np.array(centre) + rng.normal(0, 2.5, 3).clip(-5, 5)
        rx, ry, rz = np.array(radii) * rng.uniform(0.88, 1.12, 3)
        return ((x - cx - tilt * (z - cz)) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 - 1

    def cylinder(cx: float, cy: float, radius: float) -> np.ndarray:
        return np.hypot(x - cx, y - cy) - radius

    half_x, half_y = rng.uniform(78, 84), rng.uniform(56, 62)
    depth = (1 - (np.abs(x / half_x) ** 2.4 + np.abs(y / half_y) ** 2.4) ** (1 / 2.4)) * half_y  # below the skin
    fat = rng.uniform(4, 9)
    cavity = depth - fat - 8 > 0
    dome = 58 - ((np.abs(x) - 36) ** 2 + y**2) / 90  # diaphragm: height above which the lungs lie
    clumps = _smooth_noise(rng, size, spacing, 6)

    stomach = ellipsoid((29, -20, 20), (25, 20, 27), tilt=0.2)
    spleen = np.maximum(ellipsoid((50, 12, 22), (19, 28, 31)), -stomach)
    liver = ellipsoid((-26, -8, 22), (44, 40, 40))
    liver = np.maximum(liver, (0.8 * (x - 8) - (z - 14)) / 30)  # the lower margin rises to the left
    liver = np.maximum(liver, (x + 0.8 * y - rng.uniform(-2, 6)) / 30)  # the left lobe lies in front of the vessels
    kidneys = []
    for side, height in ((-1, -24), (1, -18)):
        kidney = ellipsoid((side * 36, 17, height), (19, 17, 30), tilt=-side * 0.25)
        hilum = ellipsoid((side * 18, 12, height), (8, 8, 9))
        kidneys.append(np.maximum(kidney, -hilum))

    tissues = np.full(depth.shape, INDEX["air"], np.uint8)
    layers = [
        ("skin", depth > 0),
        ("fat", depth > 3),
        ("muscle", depth > 3 + fat),
        ("fat", cavity),
        ("bowel", cavity & (clumps > -0.2) & (y < 8) & (z < 8)),
        ("air", cavity & (clumps > 1.6) & (y < -5) & (z < 8)),
        ("muscle", cavity & (np.hypot(np.abs(x) - 19, y - 28) < 8)),
        ("stomach", cavity & (stomach < 0)),
        ("gas", cavity & (stomach < -0.15) & (y < -29)),
        ("liver", cavity & (liver < 0)),
        ("vessel", cavity & (np.minimum(cylinder(5, 12, 5), cylinder(-9, 11, 6)) < 0)),
        ("spleen", cavity & (spleen < 0)),
        ("kidneys", cavity & (np.minimum(*kidneys) < 0)),
        ("lung", cavity & (z > dome)),
        ("bone", (cylinder(0, 30, 13) < 0) | (cylinder(0, 46, 7) < 0)),
        ("muscle", (cylinder(0, 30, 13) < 0) & (np.mod(z, 20) < 5)),  # discs
        ("fluid", cylinder(0, 46, 4) < 0),  # spinal canal
    ]
    for tissue, where in layers:
        tissues[where] = INDEX[tissue]
    return tissues


def ct(rng: np.random.Generator, tissues: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Simulate CT of ``tissues`` (D, H, W), values of :data:`INDEX`: int16 in HU."""
    means = np.array([hu for hu, _ in TISSUES.values()]) + rng.normal(0, 6, len(TISSUES))
    image = means[tissues] + 8 * _smooth_noise(rng, tissues.shape, spacing, 3)
    image = gaussian_filter(image, 1.0 / np.array(spacing)) + rng.normal(0, 18, tissues.shape)
    return np.maximum(image, -1024).round().astype(np.int16)


def mr(rng: np.random.Generator, tissues: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Simulate MR of ``tissues`` (D, H, W), values of :data:`INDEX`: int16 in arbitrary units."""
    means = np.array([value for _, value in TISSUES.values()]) * rng.uniform(0.93, 1.07, len(TISSUES))
    image = means[tissues] * (1 + 0.06 * _smooth_noise(rng, tissues.shape, spacing, 3))
    image = gaussian_filter(image, np.array((3.0, 1.3, 1.3)) / spacing)  # thick slices
    image *= np.exp(0.2 * _smooth_noise(rng, tissues.shape, spacing, 45))  # bias field of the coil
    noise = rng.normal(0, 12, (2, *tissues.shape))
    image = np.hypot(image + noise[0], noise[1]) * rng.uniform(0.7, 1.5)  # magnitude of a complex signal; gain
    return np.maximum(image, 1).round().astype(np.int16)


def _smooth_noise(rng: np.random.Generator, size: Sequence[int], spacing: Sequence[float], width: float) -> np.ndarray:
    """Draw a random field (D, H, W) of unit standard deviation, smoothed with ``width`` mm."""
    field = gaussian_filter(rng.normal(size=tuple(size)), width / np.array(spacing))
    return (field - field.mean()) / field.std()


def _write(array: np.ndarray, file: Path, spacing: Sequence[float], origin: Sequence[float], orientation: str) -> None:
    """Write ``array`` (z, y, x towards superior, posterior, left) with its axes stored in ``orientation``."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(step) for step in reversed(spacing)])
    image.SetOrigin([float(value) for value in origin])
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(file), True)
