"""The background, which changes of intensity leave as it is."""

import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_cmc.data.format.preprocessed import ALMOST_ZERO
from nnunet_cmc.data.loading.background import with_background_kept
from nnunet_cmc.data.loading.seeding import seeded

SIDES = (12, 14, 16)


def without_spatial(**options) -> ComposeTransforms:
    transforms = nnUNetTrainer.get_training_transforms(SIDES, (-0.3, 0.3), None, (0, 1, 2), False, **options)
    return ComposeTransforms([step for step in transforms.transforms if not isinstance(step, SpatialTransform)])


def test_scans_are_augmented_as_nnunet_augments_them_by_the_mask_in_the_label():
    stock, ours = without_spatial(use_mask_for_norm=[True, True]), with_background_kept(without_spatial())
    outside = torch.ones(SIDES, dtype=torch.bool)
    outside[2:9, 3:12, 1:15] = False
    changed = 0
    for seed in range(40):
        image = torch.randn(2, *SIDES, generator=torch.Generator().manual_seed(seed))
        image[:, outside] = ALMOST_ZERO
        label = torch.zeros(1, *SIDES, dtype=torch.int16)
        label[:, outside] = -1
        results = []
        for transforms in (stock, ours):
            with seeded(seed):
                results.append(transforms(image=image.clone(), segmentation=label.clone()))
        expected, found = results
        torch.testing.assert_close(found["image"], expected["image"], rtol=1e-5, atol=2 * ALMOST_ZERO)
        assert found["segmentation"].equal(expected["segmentation"])
        assert (found["image"] != 0).all(), "a scan that is present has no exact zeros"
        changed += not torch.isin(found["image"][:, ~outside], image[:, ~outside]).all()
    assert changed > 10
