import json

import pytest

from nnunet_cmc.planners import fingerprint
from nnunet_cmc.planners.fingerprint import CMCFingerprintExtractor, DatasetFingerprintExtractor


def test_shapes_and_spacings(dataset, capsys):
    found = CMCFingerprintExtractor(1, 1).run(overwrite_existing=True)
    assert [list(shape) for shape in found["shapes_after_crop"]] == [[10, 12, 14]] * 2
    assert found["spacings"] == [[1, 1, 1]] * 2
    assert json.loads((dataset[1] / "dataset_fingerprint.json").read_text())["spacings"] == [[1, 1, 1]] * 2
    assert "SimpleITKIOWithReorient" in capsys.readouterr().out


def test_bad_cases_stop_it(dataset, write_volume):
    write_volume(dataset[0] / "imagesTr" / "mr_0000.nii.gz", [[[1.0]]])
    with pytest.raises(ValueError, match=r"Case mr: .* is not on the grid of"):
        CMCFingerprintExtractor(1, 1).run(overwrite_existing=True)


def test_under_nnunets_own_name_only_datasets_of_ours_are_checked(dataset, monkeypatch):
    checked = []
    monkeypatch.setattr(fingerprint, "check_dataset", lambda *arguments: checked.append(arguments))
    monkeypatch.setattr(fingerprint.stock.DatasetFingerprintExtractor, "run", lambda self, overwrite_existing: "stock")
    extractor = DatasetFingerprintExtractor(1, 1)
    assert extractor.num_foreground_voxels_for_intensitystats == 10e7
    assert extractor.run() == "stock"
    assert len(checked) == 1
    del extractor.dataset_json["cmc"]
    assert extractor.run() == "stock"
    assert len(checked) == 1
