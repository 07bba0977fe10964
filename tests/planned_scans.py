"""Fingerprints of scans of several kinds, and what is planned for them."""

FINGERPRINTS = {  # spacings and shapes of scans
    "brain": ([[1.0, 1.0, 1.0]], [[140, 170, 140]]),
    "CT": ([[5.0, 0.7, 0.7], [3.0, 0.8, 0.8], [2.0, 0.9, 0.9]], [[80, 512, 512], [100, 512, 512], [150, 512, 512]]),
    "heart": ([[10.0, 1.25, 1.25]], [[10, 200, 180]]),
    "heart, some finer": ([[10.0, 1.25, 1.25], [5.0, 1.25, 1.25], [10.0, 1.5, 1.5]], [[10, 200, 180]]),
    "sagittal": ([[0.5, 0.5, 4.0]], [[320, 300, 20]]),
    "few voxels": ([[1.0, 1.0, 1.0]], [[26, 30, 25]]),
}
ESTIMATES: dict[str, int] = {}  # of nnU-Net


def without_files(planner, *arguments, **options) -> dict:
    return planner(1, *arguments, **options).decide()["configurations"]["3d_fullres"]
