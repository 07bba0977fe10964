"""What training on nnU-Net's plan has in common with nnU-Net's own training, where one modality is given."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from short_trainers import short

from nnunet_cmc.data.loading.background import KeepBackground
from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.trainers.recipes import RECIPES

SUPERVISED = RECIPES["CMCTrainer_supervised"]
STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]


@pytest.fixture
def trainer(unpaired):
    """Of a network of four resolutions, on scans of one modality each."""
    architecture = unpaired.plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    architecture["encoder_kwargs"] = {
        "features_per_stage": [4, 8, 8, 8], "blocks_per_stage": [1] * 4, "strides": STRIDES,
    }  # fmt: skip

    def build(batch_dice: bool = False, masked: bool = False):
        configuration = unpaired.plans["configurations"]["3d_fullres"]
        configuration |= {"batch_dice": batch_dice, "use_mask_for_norm": [masked] * 2}
        trainer = unpaired.trainer(short(SUPERVISED))
        trainer.initialize()
        return trainer

    return build


@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_loss_is_nnunets_with_deep_supervision(trainer, batch_dice):
    trainer = trainer(batch_dice)
    batch = Batch(**next(trainer.get_dataloaders()[0]))
    of_ct = batch.predicted[:, 0]
    ct = replace(batch, data=batch.data[of_ct], target=batch.target[of_ct], fusion=batch.fusion[of_ct])
    output = trainer.network(ct.data, ct.fusion)
    found = trainer.terms["supervised"](output, ct)

    stock = SimpleNamespace(
        label_manager=trainer.label_manager, configuration_manager=trainer.configuration_manager,
        is_ddp=False, enable_deep_supervision=True, _do_i_compile=lambda: False,
        _get_deep_supervision_scales=lambda: [[1, 1, 1], [1, 0.5, 0.5], [0.5, 0.25, 0.25]],
    )  # fmt: skip
    scales = stock._get_deep_supervision_scales()
    targets = [DownsampleSegForDSTransform(scales)(segmentation=one)["segmentation"] for one in ct.target]
    expected = nnUNetTrainer._build_loss(stock)(
        [logits[:, 0] for logits in (output.logits, *output.deep)],
        [torch.stack(of_scale) for of_scale in zip(*targets, strict=True)],
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_augmentation_and_oversampling_are_nnunets(trainer, masked):
    """But for mirroring of a class that has a side, and a background that is kept by what the image shows."""
    trainer = trainer(masked=masked)
    loader = trainer.get_dataloaders()[0].data_loader
    mirrored = trainer.inference_allowed_mirroring_axes or ()
    rotation, dummy_2d, initial, all_axes = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        trainer
    )
    assert trainer.recipe.mirrored_axes == all_axes
    patch_size = trainer.configuration_manager.patch_size
    stock = nnUNetTrainer.get_training_transforms(patch_size, rotation, None, mirrored, dummy_2d)
    (spatial, *others), (located, *ours) = stock.transforms, loader.transforms.transforms
    assert described(located.spatial) == described(spatial)
    changes = [step for step in ours if isinstance(step, KeepBackground)]
    assert len(changes) == masked
    ours = [each for step in ours for each in (step.transforms.transforms if step in changes else [step])]
    assert [described(step) for step in ours] == [described(step) for step in others]
    assert list(loader.patch_size) == list(initial)
    plain = nnUNetTrainer(
        {**trainer.plans_manager.plans, "continue_training": False},
        "3d_fullres",
        0,
        trainer.dataset_json,
        torch.device("cpu"),
    )
    assert loader.oversample_foreground_percent == plain.oversample_foreground_percent


def described(step) -> tuple:
    """Kind and values of a step of the augmentation."""
    inner = getattr(step, "transform", step)
    values = {name: repr(value) for name, value in vars(inner).items() if not name.startswith("_")}
    return type(inner), getattr(step, "apply_probability", 1), values
