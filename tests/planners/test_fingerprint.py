import json
import multiprocessing
import os
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK

from nnunet_cmc.planners import fingerprint
from nnunet_cmc.planners.fingerprint import CMCFingerprintExtractor, DatasetFingerprintExtractor
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNet
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
def test_bad_cases_of_a_dataset_without_our_key(dataset, write_volume, fault):
    raw, preprocessed = dataset
    (preprocessed / "dataset_fingerprint.json").unlink()
    change_dataset_json(raw, "cmc")
    sentence = fault(raw, write_volume)
    with pytest.raises(ValueError) as error:
        CMCFingerprintExtractor(1, 1).run()
    assert sentence in str(error.value)
    assert "Case mr: " in str(error.value)
    assert not list(preprocessed.iterdir())


@pytest.mark.parametrize("fault", [*FAULTS, lambda raw, _: (raw / "dataset.json").write_text("{")])
def test_a_dataset_that_is_not_ours_gets_nnunets_answers(dataset, monkeypatch, write_volume, fault):
    """Of nnU-Net's own class, with nnU-Net's own errors. Its pool is one of threads here, and draws few voxels."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: SimpleNamespace(Pool=ThreadPool))
    change_dataset_json(dataset[0], "cmc")
    fault(dataset[0], write_volume)

    def answer(extractor):
        try:
            running = extractor(1, 1)
            assert type(running) is fingerprint.stock.DatasetFingerprintExtractor
            running.num_foreground_voxels_for_intensitystats = 1000
            running.run(overwrite_existing=True)
        except Exception as error:
            return repr(error)
        return None

    expected = answer(fingerprint.stock.DatasetFingerprintExtractor)
    assert expected is not None
    assert answer(DatasetFingerprintExtractor) == expected


def test_without_variables_nnunet_answers(monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(RuntimeError) as caught:
        DatasetFingerprintExtractor(1, 1)
    with pytest.raises(RuntimeError, match=str(caught.value).splitlines()[0][:40]):
        fingerprint.stock.DatasetFingerprintExtractor(1, 1)


@pytest.mark.parametrize("key", ["labels", "file_ending", "channel_names"])
def test_a_dataset_json_that_lacks_a_key(dataset, key):
    change_dataset_json(dataset[0], "cmc", key)
    with pytest.raises(ValueError, match=f'dataset.json.*must have "{key}"|dataset.json: "{key}" must'):
        CMCFingerprintExtractor(1, 1)
    with pytest.raises(ValueError, match=f'dataset.json.*must have "{key}"|dataset.json: "{key}" must'):
        CMCPlannerTiny(1)


def test_the_command_names_bad_cases_of_a_dataset_without_our_key(dataset, run_command, write_volume):
    """Both cases are bad: from a good one nnU-Net draws so many voxels that it takes half a minute."""
    raw, preprocessed = dataset
    (preprocessed / "dataset_fingerprint.json").unlink()
    change_dataset_json(raw, "cmc")
    sentence = crop_a_channel(raw, write_volume)
    (raw / "labelsTr" / "ct.nii.gz").unlink()
    output = run_command(
        "nnUNetv2_plan_and_preprocess", "-d", 1, "-pl", "CMCPlannerTiny", "-fpe", "CMCFingerprintExtractor",
        "-c", "3d_fullres", "-npfp", 1, "-np", 1, environment=dict(os.environ), fails=True,
    )  # fmt: skip
    assert "Case ct: its label" in output
    assert sentence in output
    assert not list(preprocessed.iterdir())


@pytest.mark.parametrize("reader", [None, "SimpleITKIOWithReorient"])
def test_a_fingerprint_on_the_axes_of_sagittal_files_is_refused(make_dataset, reader):
    """nnU-Net's extractor makes it where dataset.json names no reader; ours never does."""
    case = np.random.default_rng(0).normal(size=(12, 32, 32)) + 5
    cases = {name: ({0: case, 1: case}, case > 5) for name in ("a", "b")}
    raw = make_dataset(cases)
    for file in raw.rglob("*.nii.gz"):  # 12 slices from left to right, 5 mm apart
        image = SimpleITK.ReadImage(str(file))
        image.SetSpacing((1.0, 1.0, 5.0))
        image.SetDirection((0, 0, -1, 1, 0, 0, 0, -1, 0))
        SimpleITK.WriteImage(image, str(file))
    json_file = raw / "dataset.json"
    content = json.loads(json_file.read_text())
    content.pop("overwrite_image_reader_writer", None)
    json_file.write_text(json.dumps(content | ({"overwrite_image_reader_writer": reader} if reader else {})))
    extractor = fingerprint.stock.DatasetFingerprintExtractor(1, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 1000  # with nnU-Net's own 1e8 it takes half a minute
    extractor.run()
    if reader is None:
        with pytest.raises(ValueError, match=r"has the spacing 5 x 1 x 1 mm of .*, which is 1 x 1 x 5 mm on the canon"):
            CMCPlannerNNUNet(1).plan_experiment()
        CMCFingerprintExtractor(1, num_processes=1).run(overwrite_existing=True)
    assert CMCPlannerNNUNet(1).plan_experiment()["original_median_spacing_after_transp"] == [5.0, 1.0, 1.0]


def test_a_fingerprint_on_the_axes_of_isotropic_sagittal_files_is_refused(make_dataset):
    """Its spacing is the same along all axes, its sizes are not."""
    case = np.random.default_rng(0).normal(size=(12, 32, 24)) + 5
    raw = make_dataset({name: ({0: case, 1: case}, case > 5) for name in ("a", "b")})
    for file in raw.rglob("*.nii.gz"):
        image = SimpleITK.ReadImage(str(file))
        image.SetDirection((0, 0, -1, 1, 0, 0, 0, -1, 0))
        SimpleITK.WriteImage(image, str(file))
    json_file = raw / "dataset.json"
    content = json.loads(json_file.read_text())
    content.pop("overwrite_image_reader_writer", None)
    json_file.write_text(json.dumps(content))
    extractor = fingerprint.stock.DatasetFingerprintExtractor(1, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 1000
    extractor.run()
    with pytest.raises(
        ValueError, match=r"has the size 12 x 32 x 24 of .*, which is 32 x 24 x 12 on the canonical axes"
    ):
        CMCPlannerNNUNet(1).plan_experiment()
    CMCFingerprintExtractor(1, num_processes=1).run(overwrite_existing=True)
    assert CMCPlannerNNUNet(1).plan_experiment()["original_median_shape_after_transp"] == [32, 24, 12]


def test_a_fingerprint_of_other_scans_is_refused(make_dataset):
    """Of a dataset that was deleted and converted again, nnU-Net keeps the old one without --clean."""
    case = np.random.default_rng(0).normal(size=(20, 20, 20)) + 5
    preprocessed = make_dataset({"a": ({0: case, 1: case}, case > 5)}).parents[1] / "preprocessed" / "Dataset001_Test"
    CMCFingerprintExtractor(1, num_processes=1).run()
    CMCPlannerTiny(1).plan_experiment()
    file = preprocessed / "dataset_fingerprint.json"
    sound = json.loads(file.read_text())
    remedy = r"run nnUNetv2_extract_fingerprint -d 1 -fpe CMCFingerprintExtractor --clean\.$"
    for changes, why in (
        ({"spacings": [[1.0] * 3] * 2, "shapes_after_crop": [[20] * 3] * 2}, "it has 2 case.s., the dataset 1"),
        ({"spacings": [[2.0, 1.0, 1.0]]}, "its spacing of .*a_0000.nii.gz is 2 x 1 x 1 mm, the file's 1 x 1 x 1 mm"),
        ({"shapes_after_crop": [[20, 20, 21]]}, "its size of .*a_0000.nii.gz is 20 x 20 x 21, the file's 20 x 20 x 20"),
    ):
        file.write_text(json.dumps(sound | changes))
        with pytest.raises(ValueError, match=rf"was made of other scans \({why}\): {remedy}"):
            CMCPlannerTiny(1).plan_experiment()
    file.write_text(json.dumps(sound | {"shapes_after_crop": [[9, 20, 12]]}))  # without the zeros around
    CMCPlannerTiny(1).plan_experiment()
