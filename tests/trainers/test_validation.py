import numpy as np
import pytest
import torch

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.trainers.validation import confusion_alone, mean_dice


@pytest.fixture
def network():
    torch.manual_seed(0)
    kwargs = {"features_per_stage": [4, 8], "n_blocks_per_stage": [1, 1]}
    return CMCNet(3, 3, [8, 8, 8], "residual", kwargs, [4]).eval()


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
