"""Plans that somebody edited: what is missing, of the wrong kind, or at odds, in a sentence."""

import pytest
from plans import make_plans

from nnunet_cmc.data.format.plans_json import planned_configuration, require_ours

ALL = [*make_plans(), *make_plans()["configurations"]["3d_fullres"]]
OF_TRAINING = ["batch_size", "learning_rate", "batch_dice", "resampling_fn_probabilities"]


def remove(plans, key):
    plans.pop(key, None)
    plans.get("configurations", {}).get("3d_fullres", {}).pop(key, None)


@pytest.mark.parametrize("key", sorted({*ALL} - {"configurations", "architecture", "plans_name"}))
def test_an_entry_that_is_missing(key):
    plans = make_plans()
    remove(plans, key)
    with pytest.raises(ValueError, match=f"^The plans CMCPlans lack {key}: plan again, with nnUNetv2_plan_experiment"):
        require_ours(plans, "3d_fullres", "CMCTrainer")
    if key.removesuffix("_kwargs") not in OF_TRAINING:
        with pytest.raises(ValueError, match=f"lack {key}"):
            planned_configuration(plans, "3d_fullres")


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("batch_size", 0, "a whole number above 0"),
        ("batch_size", True, "a whole number above 0"),
        ("learning_rate", "1e-3", "a number above 0"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("spacing", [1.5, 1.5], "three numbers above 0"),
        ("spacing", [1.5, 1.5, 0.0], "three numbers above 0"),
        ("patch_size", [96, 96, 96.5], "three whole numbers above 0"),
        ("patch_size", 96, "three whole numbers above 0"),
        ("use_mask_for_norm", "False", "a list"),
        ("batch_dice", None, "true or false"),
        ("resampling_fn_data_kwargs", [], "an object"),
        ("preprocessor_name", 7, "a text"),
    ],
)
def test_an_entry_of_another_kind(key, value, kind):
    with pytest.raises(ValueError, match=f" as {key}, which must be {kind}: plan again"):
        require_ours(make_plans(**{key: value}), "3d_fullres", "CMCTrainer")


@pytest.mark.parametrize("axes", [[0, 1], [0, 1, 1], [0, 1, [2]], "012"])
def test_axes_that_are_no_order(axes):
    with pytest.raises(ValueError, match="as transpose_forward, which must be 0, 1 and 2 in some order"):
        planned_configuration({**make_plans(), "transpose_forward": axes}, "3d_fullres")


def test_a_patch_that_the_network_is_not_for():
    with pytest.raises(ValueError, match=r"have the patch \[32, 32, 32\], but a network for \[16, 16, 16\]: write"):
        require_ours(make_plans(patch_size=[32, 32, 32]), "3d_fullres", "CMCTrainer")


def test_an_inherited_entry_counts():
    plans = make_plans()
    plans["configurations"]["larger"] = {"inherits_from": "3d_fullres", "batch_size": 7}
    assert require_ours(plans, "larger", "CMCTrainer")["batch_size"] == 7
