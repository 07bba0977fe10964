"""Loaders of pairs over a handful of preprocessed cases whose voxels say where they come from."""

import os

import numpy as np
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.loading.cases import UnlabeledDataset
from nnunet_cmc.data.loading.fusion import FuseOrSplit
from nnunet_cmc.data.loading.locating import LocatingTransform, located
from nnunet_cmc.data.loading.pairs import PairLoader
from nnunet_cmc.data.loading.sampling import CaseSampler

PATCH = (16, 16, 16)


SHAPE = (24, 32, 28)


BODY = [[2.0, 22.0], [4.0, 28.0], [4.0, 24.0]]


def save(folder, case, channels, seed=0, shape=SHAPE, far=1, near=None):
    """A case whose present channels count voxels along W, H, ...

    Of the class ``far`` there is a cube in one corner, of ``near`` in the opposite one; None: no cube.
    """
    rng = np.random.default_rng(seed)
    data = np.zeros((2, *shape), dtype=np.float32)
    ramp = np.indices(shape).sum(0) + 1.0
    for channel in channels:
        data[channel] = ramp + channel + rng.uniform(0, 0.1, shape)
    seg = np.zeros((1, *shape), dtype=np.int16)
    if far is not None:
        seg[0, shape[0] - 6 : shape[0] - 2, 24:28, 20:24] = far
    if near is not None:
        seg[0, 2:6, 4:8, 4:8] = near
    properties = {
        "present_channels": list(channels),
        "body_box": BODY,
        "class_locations": {k: np.argwhere(seg == k) for k in (1, 2)},
    }
    sizes = {"chunks": (1, 16, 16, 16), "blocks": (1, 8, 8, 8)}
    nnUNetDatasetBlosc2.save_case(data, seg, properties, os.path.join(folder, case), **sizes)


def dataset_json(present, subjects=None):
    return {
        "channel_names": {"0": "CT", "1": "MR"},
        "labels": {"background": 0, "cube": 1},
        "file_ending": ".nii.gz",
        "cmc": {"version": 1, "present_channels": {c: list(p) for c, p in present.items()}, "subjects": subjects or {}},
    }


def transforms(augment):
    """nnU-Net's augmentation, or none, so that voxel values can be traced."""
    if augment:
        stock = nnUNetTrainer.get_training_transforms(PATCH, (-0.5, 0.5), None, (0, 1, 2), False)
        return located(stock)
    return LocatingTransform(SpatialTransform(PATCH, 0, False))


def loader(
    folder, present, subjects=None, unlabeled=(), patch=PATCH, final=PATCH, shape=SHAPE, augment=False, chain=None,
    pairs=2, unlabeled_pairs=None, **kwargs,
):  # fmt: skip
    for i, (case, channels) in enumerate(present.items()):
        if not os.path.isfile(os.path.join(folder, case + ".b2nd")):
            save(folder, case, channels, i, shape)
    json = dataset_json(present, subjects)
    description = DatasetDescription.from_dict(json)
    labeled = CaseSampler(nnUNetDatasetBlosc2(str(folder), [c for c in present if c not in unlabeled]), description)
    hidden = CaseSampler(UnlabeledDataset(dict.fromkeys(unlabeled, str(folder))), description) if unlabeled else None
    chain = chain or transforms(augment)
    arguments = {"oversample_foreground_percent": 0.33, "fusion": FuseOrSplit(), **kwargs}
    return PairLoader(
        labeled, hidden, pairs, unlabeled_pairs or pairs, patch, final, LabelManager(json["labels"], None),
        transforms=chain, unlabeled_transforms=chain, **arguments,
    )  # fmt: skip


REGISTERED = {"a": (0, 1), "b": (0, 1), "c": (0, 1)}


CT_ONLY = {"ct1": (0,), "ct2": (0,), "ct3": (0,)}


UNPAIRED = {"ct1": (0,), "ct2": (0,), "mr1": (1,), "mr2": (1,)}
