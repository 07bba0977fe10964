"""Two views of every unlabelled scan: a weak one that a teacher labels, and a strong one that its student sees."""

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_cmc.data.pairs import PairLoader


def perturbation(patch_size) -> BasicTransform:
    """nnU-Net's changes of intensity at twice its strength and several times its frequency, and holes.

    No voxel moves, so what is true of the weak view is true of the strong one.
    """
    hole = tuple((max(side // 8, 1), max(side // 3, 2)) for side in patch_size)
    each = {"synchronize_channels": False, "p_per_channel": 1}
    steps = [
        GaussianNoiseTransform((0, 0.2), **each),
        GaussianBlurTransform((0.5, 1.5), synchronize_axes=False, **each),
        MultiplicativeBrightnessTransform(BGContrast((0.5, 1.5)), **each),
        ContrastTransform(BGContrast((0.5, 1.5)), preserve_range=True, **each),
        GammaTransform(BGContrast((0.5, 2.0)), p_invert_image=0.2, p_retain_stats=1, **each),
        BlankRectangleTransform(hole, torch.mean, num_rectangles=(1, 4)),
    ]
    return ComposeTransforms([RandomTransform(step, apply_probability=0.5) for step in steps])


class TwoViewLoader(PairLoader):
    """PairLoader whose batches have ``strong`` as well, ``(N_unlabeled, M, D, H, W)``: the unlabelled rows perturbed.

    An absent channel is exactly zero in both views; a present one is not zero everywhere in either.
    """

    def make_batch(self) -> dict:
        """A batch drawn with the global random generators."""
        batch = super().make_batch()
        weak = batch["data"][len(batch["target"]) :]
        perturb = perturbation(self.final_patch_size)
        there = (weak != 0).flatten(2).any(2)[..., None, None, None]
        strong = torch.stack([perturb(image=row.clone())["image"] for row in weak]) if len(weak) else weak
        return {**batch, "strong": strong * there}
