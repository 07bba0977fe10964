import json
import multiprocessing
import os
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import pytest

from nnunet_cmc.planners import fingerprint
from nnunet_cmc.planners.fingerprint import CMCFingerprintExtractor, DatasetFingerprintExtractor
from nnunet_cmc.planners.tiny import CMCPlannerTiny


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


def change_dataset_json(raw, *without, **changes):
    content = {**json.loads((raw / "dataset.json").read_text()), **changes}
    (raw / "dataset.json").write_text(json.dumps({key: content[key] for key in content if key not in without}))


def lose_a_channel(raw, write_volume):
    (raw / "imagesTr" / "mr_0001.nii.gz").unlink()
    return "Case mr: the file of channel 1 (MR) is missing"


def lose_the_first_channel(raw, write_volume):
    (raw / "imagesTr" / "mr_0000.nii.gz").unlink()
    return "Case mr: the file of channel 0 (CT) is missing"


def crop_a_channel(raw, write_volume):
    write_volume(raw / "imagesTr" / "mr_0000.nii.gz", [[[1.0]]])
    return "mr_0001.nii.gz is not on the grid of"


def lose_a_label(raw, write_volume):
    (raw / "labelsTr" / "mr.nii.gz").unlink()
    return "mr.nii.gz is missing: add it"


FAULTS = (lose_a_channel, lose_the_first_channel, crop_a_channel, lose_a_label)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("extractor", [CMCFingerprintExtractor, DatasetFingerprintExtractor])
def test_bad_cases_of_a_dataset_without_our_key(dataset, monkeypatch, write_volume, extractor, fault):
    """nnU-Net's pool is one of threads here, and draws few voxels: both take seconds otherwise."""
    raw, preprocessed = dataset
    (preprocessed / "dataset_fingerprint.json").unlink()
    change_dataset_json(raw, "cmc")
    sentence = fault(raw, write_volume)
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: SimpleNamespace(Pool=ThreadPool))
    running = extractor(1, 1)
    running.num_foreground_voxels_for_intensitystats = 1000
    with pytest.raises(ValueError) as error:
        running.run()
    assert sentence in str(error.value)
    assert "Case mr: " in str(error.value)
    assert not list(preprocessed.iterdir())


def test_a_sound_dataset_without_our_key_is_nnunets(dataset, monkeypatch):
    change_dataset_json(dataset[0], "cmc")
    monkeypatch.setattr(fingerprint, "check_dataset", None)
    monkeypatch.setattr(fingerprint.stock.DatasetFingerprintExtractor, "run", lambda self, overwrite_existing: "stock")
    assert DatasetFingerprintExtractor(1, 1).run() == "stock"


def test_an_error_that_the_files_do_not_explain_stays_nnunets(dataset, monkeypatch):
    def fail(self, overwrite_existing):
        raise RuntimeError("a worker is gone")

    change_dataset_json(dataset[0], "cmc")
    monkeypatch.setattr(fingerprint.stock.DatasetFingerprintExtractor, "run", fail)
    with pytest.raises(RuntimeError, match="a worker is gone"):
        DatasetFingerprintExtractor(1, 1).run()


@pytest.mark.parametrize("key", ["labels", "file_ending", "channel_names"])
def test_a_dataset_json_that_lacks_a_key(dataset, key):
    change_dataset_json(dataset[0], "cmc", key)
    with pytest.raises(ValueError, match=f'dataset.json.*must have "{key}"|dataset.json: "{key}" must'):
        CMCFingerprintExtractor(1, 1)
    with pytest.raises(ValueError, match=f'dataset.json.*must have "{key}"|dataset.json: "{key}" must'):
        CMCPlannerTiny(1)
    if key == "file_ending":  # without the others nnU-Net's own extractor can do its work
        with pytest.raises(ValueError, match=r'dataset\.json: "file_ending" must'):
            DatasetFingerprintExtractor(1, 1)


@pytest.mark.parametrize("extractor", ["CMCFingerprintExtractor", "DatasetFingerprintExtractor"])
def test_the_command_names_bad_cases_of_a_dataset_without_our_key(dataset, run_command, write_volume, extractor):
    """Both cases are bad: from a good one nnU-Net draws so many voxels that it takes half a minute."""
    raw, preprocessed = dataset
    (preprocessed / "dataset_fingerprint.json").unlink()
    change_dataset_json(raw, "cmc")
    sentence = crop_a_channel(raw, write_volume)
    (raw / "labelsTr" / "ct.nii.gz").unlink()
    output = run_command(
        "nnUNetv2_plan_and_preprocess", "-d", 1, "-pl", "CMCPlannerTiny", "-fpe", extractor, "-c", "3d_fullres",
        "-npfp", 1, "-np", 1, environment=dict(os.environ), fails=True,
    )  # fmt: skip
    assert "Case ct: its label" in output
    assert sentence in output
    assert not list(preprocessed.iterdir())
