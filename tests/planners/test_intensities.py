import json

import numpy as np
import pytest
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.planners.intensities import intensity_statistics

RNG = np.random.default_rng(0)
LABEL = np.zeros((6, 8, 10), np.uint8)
LABEL[1:4, 2:6, 3:8] = 1
LABEL[4, 2:4, 3:5] = 2


def scan(mean):
    return RNG.normal(mean, 10, LABEL.shape).astype(np.float32)


def statistics(folder, hidden=()):
    dataset_json = json.loads((folder / "dataset.json").read_text())
    dataset = get_filenames_of_train_images_and_targets(str(folder), dataset_json)
    return intensity_statistics(dataset, DatasetDescription.from_dict(dataset_json), hidden)


@pytest.mark.parametrize("declare", [True, False])
def test_each_channel_is_measured_in_cases_that_show_it(make_dataset, declare, capsys):
    ct, mr = [scan(60), scan(40)], scan(500)
    cases = {"a": ({0: ct[0]}, LABEL), "b": ({1: mr}, LABEL), "c": ({0: ct[1]}, LABEL)}
    found = statistics(make_dataset(cases, declare=declare))
    assert list(found) == ["0", "1"]
    for channel, volumes in (("0", ct), ("1", [mr])):
        voxels = np.concatenate([volume[LABEL > 0] for volume in volumes])
        expected = {
            "mean": voxels.mean(),
            "median": np.median(voxels),
            "std": voxels.std(),
        }
        for key, value in expected.items():
            assert found[channel][key] == pytest.approx(value, abs=0.5), key  # sampled with replacement
        low, high = np.percentile(voxels, (3, 97))
        assert voxels.min() == found[channel]["min"] <= found[channel]["percentile_00_5"] < low
        assert voxels.max() == found[channel]["max"] >= found[channel]["percentile_99_5"] > high
    assert "Intensity statistics of" not in capsys.readouterr().out


def test_hidden_labels_change_nothing(make_dataset):
    ct, mr, hidden = scan(60), scan(500), scan(1000)
    cases = {"a": ({0: ct}, LABEL), "b": ({1: mr}, LABEL)}
    alone = statistics(make_dataset(cases, name="Dataset001_Alone"))
    for number, garbage in ((2, LABEL), (3, LABEL[::-1]), (4, np.ones_like(LABEL))):
        folder = make_dataset(cases | {"h": ({0: hidden, 1: hidden}, garbage)}, name=f"Dataset00{number}_Hidden")
        assert statistics(folder, {"h"}) == alone


def test_a_modality_with_hidden_labels_only(make_dataset, capsys):
    cases = {"a": ({0: scan(60)}, LABEL), "h": ({0: scan(-300), 1: scan(500)}, LABEL)}
    found = statistics(make_dataset(cases), {"h"})
    assert found["0"]["min"] > 0
    assert found["1"]["mean"] == pytest.approx(500, abs=5)
    assert "Intensity statistics of MR: every label of it is hidden in some fold" in capsys.readouterr().out


def test_without_foreground_all_voxels_count(make_dataset, capsys):
    ct, mr = scan(60), scan(500)
    found = statistics(make_dataset({"a": ({0: ct}, LABEL), "b": ({1: mr}, LABEL * 0)}))
    assert found["1"]["min"] == mr.min()
    assert found["1"]["max"] == mr.max()
    assert "Intensity statistics of MR: no case with a visible label has foreground" in capsys.readouterr().out
    found = statistics(make_dataset({"a": ({0: ct}, LABEL), "b": ({0: ct + 99, 1: mr}, LABEL * 0)}, "Dataset002_B"))
    assert found["0"]["max"] == ct[LABEL > 0].max()  # a case without foreground is passed over where others have some


def test_no_case_of_a_modality(make_dataset):
    with pytest.raises(ValueError, match=r"No labelled case shows modality MR \(channel 1\): add a case to imagesTr"):
        statistics(make_dataset({"a": ({0: scan(60)}, LABEL)}))


def test_label_values_that_dataset_json_does_not_name(make_dataset):
    with pytest.raises(ValueError, match=r"Case a: .*a\.nii\.gz has the label value\(s\) 3, 6"):
        statistics(make_dataset({"a": ({0: scan(60), 1: scan(60)}, LABEL * 3)}))
