import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from short_trainers import short

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.trainers.validation_dice import (
    MEMORY,
    SHARPNESS,
    UNTAUGHT,
    confusion_alone,
    mean_dice,
    mean_dice_of_shown,
    updated_reliability,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return CMCNet(3, 3, [8, 8, 8], "unet", {"features_per_stage": [4, 8], "blocks_per_stage": [1, 1]}).eval()


@torch.no_grad()
def test_counts_what_the_network_predicts_for_cases_of_one_modality(network):
    data = torch.randn(4, 3, 8, 8, 8)
    data[0, 1] = data[1, :2] = data[:, 2] = 0  # no case has the third modality
    data[1, 0] = data[0, 0]
    target = torch.randint(3, (4, 1, 8, 8, 8)).short()
    found = confusion_alone(network, data, target)
    assert found.dtype == np.int64
    expected = np.zeros((3, 3, 3), int)
    for m in range(3):
        for case, truth in zip(data, target, strict=True):
            if case[m].any():
                only = torch.zeros_like(case)[None]
                only[0, m] = case[m]
                np.add.at(expected[m], (truth[0].flatten().int(), network(only).argmax(1).flatten()), 1)
    np.testing.assert_array_equal(found, expected)
    assert not found[2].any()
    assert found[0].sum() == 4 * 8**3


def test_dice_of_the_classes_that_occur():
    truth = np.array([0, 0, 1, 1, 1, 3])
    found = np.array([0, 1, 1, 1, 0, 0])
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (truth, found), 1)
    assert mean_dice(confusion) == pytest.approx((2 * 2 / (3 + 3) + 0) / 2)  # nothing is of class 2
    assert np.isnan(mean_dice(np.diag([5, 0, 0])))


def confusion_of(*dice: list[float]) -> np.ndarray:
    """``(M, K, K)`` with these values of Dice for the foreground classes of each modality; None: does not occur."""
    result = np.zeros((len(dice), len(dice[0]) + 1, len(dice[0]) + 1), int)
    result[:, 0, 0] = 10**6
    for m, values in enumerate(dice):
        for k, value in enumerate(values, 1):
            if value is not None:
                wrong = round(1000 * (1 - value))
                result[m, k, k], result[m, k, 0], result[m, 0, k] = 1000 - wrong, wrong, wrong
    return result


def test_a_modality_that_never_finds_a_class_stays_unreliable_about_it():
    """Also where no patch shows the class for an epoch: 0 would say that nothing is known."""
    found = updated_reliability(torch.zeros(2, 3), confusion_of([0.9, 0.0], [0.4, 0.8]))
    later = updated_reliability(found, confusion_of([0.9, None], [0.4, None]))
    assert later[0, 2] == pytest.approx(0, abs=1e-4)
    assert later[1, 2] == pytest.approx(0.8 * SHARPNESS)


def test_a_false_positive_of_a_class_that_a_modality_does_not_show_is_no_dice_of_0():
    confusion = np.array([[90, 0, 1], [2, 8, 0], [0, 0, 0]])  # one voxel is taken for class 2
    assert mean_dice_of_shown(confusion) == pytest.approx(16 / 18)
    assert mean_dice(confusion) == pytest.approx(8 / 18)
    assert np.isnan(mean_dice_of_shown(np.array([[90, 3], [0, 0]])))


def test_reliability_is_the_dice_of_each_modality_alone():
    found = updated_reliability(torch.zeros(2, 3), confusion_of([0.9, 0.5], [0.3, 0.7])) / SHARPNESS
    torch.testing.assert_close(found, torch.tensor([[0.7, 0.9, 0.5], [0.5, 0.3, 0.7]]))
    later = updated_reliability(found * SHARPNESS, confusion_of([0.5, 0.5], [0.7, 0.7])) / SHARPNESS
    expected = MEMORY * found + (1 - MEMORY) * torch.tensor([[0.5, 0.5, 0.5], [0.7, 0.7, 0.7]])
    torch.testing.assert_close(later, expected)


def test_a_modality_that_is_labelled_with_easy_classes_alone_is_not_the_better_one():
    """As CT with all organs and MR with some."""
    easy, all_classes = [0.8, None, None], [0.9, 0.5, 0.4]
    confusion = confusion_of(all_classes, easy)
    found = updated_reliability(torch.zeros(2, 4), confusion) / SHARPNESS
    torch.testing.assert_close(found[:, 0], torch.tensor([0.9, 0.8]))
    taught = np.array([[False, True, True, True], [False, True, False, False]])
    found = updated_reliability(torch.zeros(2, 4), confusion, taught) / SHARPNESS
    torch.testing.assert_close(
        found, torch.tensor([[0.9, *all_classes], [0.8, 0.8, *[UNTAUGHT / SHARPNESS] * 2]]), atol=1e-6, rtol=0
    )
    assert (found * SHARPNESS).softmax(0)[1, 2:].max() < 1e-6, "no say, however hard these classes are"
    later = updated_reliability(found * SHARPNESS, confusion_of(all_classes, [None, None, None]), taught)
    torch.testing.assert_close(later[1] / SHARPNESS, found[1], atol=1e-6, rtol=0)


def test_a_modality_has_no_say_about_a_class_that_its_training_labels_lack(unpaired):
    unpaired.dataset_json["labels"]["half"] = 2
    cases = nnUNetDatasetBlosc2(str(unpaired.images))
    for case in ("ct0", "ct3", "mr3"):  # MR shows it in validation alone
        data, seg, _, properties = cases.load_case(case)
        data, seg = data[:], seg[:]
        cube = np.argwhere(seg == 1)
        half = cube[cube[:, 1] < np.median(cube[:, 1])]
        seg[tuple(half.T)] = 2
        properties["class_locations"] = {label: np.argwhere(seg == label) for label in (1, 2)}
        for file in unpaired.images.glob(f"{case}*"):
            file.unlink()
        sizes = {"chunks": (1, 16, 16, 16), "blocks": (1, 8, 8, 8)}
        nnUNetDatasetBlosc2.save_case(data, seg, properties, str(unpaired.images / case), **sizes)
    trainer = unpaired.trainer(short("SupTrainer", 1, 2, 4))
    trainer.run_training()
    reliability = trainer.network.combination.reliability
    assert reliability[1, 2] == UNTAUGHT
    assert (reliability.flatten()[:5] > 0).all()


def test_what_is_not_known_silences_nobody():
    nothing = torch.zeros(2, 3)
    assert updated_reliability(nothing, confusion_of([None, None], [None, None])).equal(nothing)
    found = updated_reliability(nothing, confusion_of([0.9, 0.5], [None, None])) / SHARPNESS
    torch.testing.assert_close(found[1], torch.full((3,), 0.7))
    found = updated_reliability(nothing, confusion_of([0.9, 0.5], [0.4, None])) / SHARPNESS
    torch.testing.assert_close(found[1], torch.full((3,), 0.4))
    kept = updated_reliability(torch.full((2, 3), 5.0), confusion_of([0.9, None], [0.4, 0.4])) / SHARPNESS
    assert kept[0, 2] == 0.5, "a class that does not occur this time"
    kept = updated_reliability(torch.full((2, 3), 5.0), confusion_of([0.9, 0.9], [None, None]))
    assert kept[1].equal(torch.full((3,), 5.0)), "a modality that no patch shows this time"
