import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from plans import make_plans

from nnunet_cmc.data.format.preprocessed import unlabeled_folder
from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor

ALMOST_ZERO = np.float32(1e-6)
MEAN, STD, LOW, HIGH = 20.0, 50.0, -100.0, 200.0  # of CT
DATASET_JSON = {
    "channel_names": {"0": "CT", "1": "MR"},
    "labels": {"background": 0, "liver": 1, "spleen": 2},
    "file_ending": ".nii.gz",
}


def plans_of(use_mask_for_norm=False, **configuration):
    schemes = ["CTNormalization", "ZScoreNormalization"]
    plans = make_plans(normalization_schemes=schemes, use_mask_for_norm=[False, use_mask_for_norm], **configuration)
    statistics = {"mean": MEAN, "std": STD, "percentile_00_5": LOW, "percentile_99_5": HIGH}
    return {**plans, "foreground_intensity_properties_per_channel": {"0": statistics, "1": statistics}}


def managers(**options):
    plans = PlansManager(plans_of(**options))
    return plans, plans.get_configuration("3d_fullres")


def run_arrays(data, label=None, **options):
    return CMCPreprocessor(verbose=False).run_case_npy(
        data, label, {"spacing": [1.0, 1.0, 1.0]}, *managers(**options), DATASET_JSON
    )


def make_ct(shape=(10, 20, 24)):
    """Air around a block of tissue [2, 8) x [4, 18) x [3, 21); the corner voxel is exactly the mean."""
    ct = np.full(shape, -1000, np.float32)
    ct[2:8, 4:18, 3:21] = np.random.default_rng(0).integers(-20, 300, (6, 14, 18))
    ct[0, 0, 0] = MEAN
    return ct


def make_mr(shape=(10, 20, 24)):
    """Rim of zeros around a bright block [1, 9) x [2, 18) x [3, 23)."""
    mr = np.zeros(shape, np.float32)
    mr[1:9, 2:18, 3:23] = np.random.default_rng(1).integers(50, 400, (8, 16, 20))
    return mr


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.7, 0.9, 1.3)])
@pytest.mark.parametrize("channel", [0, 1])
def test_absent_is_zero_everywhere_and_present_nowhere(channel, spacing):
    volumes = np.zeros((2, 10, 20, 24), np.float32)
    volumes[channel] = (make_ct, make_mr)[channel]()
    data, _, properties = run_arrays(volumes, spacing=spacing)
    assert data.dtype == np.float32
    assert (data[1 - channel] == 0).all()
    assert (data[channel] != 0).all()
    assert properties["present_channels"] == [channel]


def test_ct_is_normalised_as_nnunet_does_it():
    ct = make_ct()
    data, seg, _ = run_arrays(np.stack([ct, ct * 0]))
    expected = (np.clip(ct, LOW, HIGH) - MEAN) / STD
    assert (expected == 0).sum() >= 1
    np.testing.assert_allclose(data[0], np.where(expected == 0, ALMOST_ZERO, expected), rtol=1e-6)
    assert data[0, 0, 0, 0] == ALMOST_ZERO
    assert seg.shape == (1, *ct.shape)


def test_both_channels_are_cropped_together_and_mr_is_standardised_inside_its_mask():
    ct, mr = np.zeros((10, 20, 24), np.float32), make_mr()
    ct[3:5, 4:6, 5:7] = 60
    data, seg, properties = run_arrays(np.stack([ct, mr]), use_mask_for_norm=True)
    inside = mr[1:9, 2:18, 3:23]
    assert data.shape == (2, *inside.shape)
    np.testing.assert_allclose(data[1], (inside - inside.mean()) / inside.std(), rtol=1e-5, atol=1e-6)
    assert properties["present_channels"] == [0, 1]
    assert (seg == 0).all()


@given(arrays(np.float32, (1, 10, 20, 24), elements=st.sampled_from([0, 1, 2])))
@settings(max_examples=20, deadline=None)
def test_no_label_touches_the_image(label):
    mr = make_mr()
    mr[4:6] = 0  # a part without signal inside of the crop
    mr[5, 10, 10:12] = 300
    volumes = np.stack([mr * 0, mr])
    alone, _, without = run_arrays(volumes, use_mask_for_norm=True)
    data, _, properties = run_arrays(volumes, label, use_mask_for_norm=True)
    np.testing.assert_array_equal(data, alone)
    assert properties["body_box"] == without["body_box"]


def test_body_box_is_in_voxels_of_the_result():
    ct = make_ct()
    _, _, properties = run_arrays(np.stack([ct, ct * 0]))
    assert properties["body_box"] == [[2, 8], [4, 18], [3, 21]]
    data, _, properties = run_arrays(np.stack([ct, ct * 0]), spacing=(2.0, 0.5, 1.0))
    assert data.shape[1:] == (5, 40, 24)
    assert properties["body_box"] == [[1, 4], [8, 36], [3, 21]]
    _, _, properties = run_arrays(np.stack([ct * 0, make_mr()]))  # cropped to its bright block first
    assert properties["body_box"][0] == [0, 8]


def test_two_channels_called_ct():
    volumes, both = np.stack([make_ct(), make_ct()]), {**DATASET_JSON, "channel_names": {"0": "CT", "1": "CT"}}
    run, spacing = CMCPreprocessor(verbose=False).run_case_npy, {"spacing": [1.0, 1.0, 1.0]}
    _, _, properties = run(volumes, None, spacing, *managers(), both)
    assert properties["body_box"] == run_arrays(volumes * [[[[1]]], [[[0]]]])[2]["body_box"]


def test_arrays_that_are_no_image():
    with pytest.raises(ValueError, match=r"has 1 channel\(s\), but the dataset has 2 \(CT, MR\)"):
        run_arrays(make_ct()[None])
    with pytest.raises(ValueError, match="is empty: all its voxels are zero; give"):
        run_arrays(np.zeros((2, 4, 4, 4)))


def test_the_channel_of_a_file_is_in_its_name(tmp_path, write_volume):
    files = [str(tmp_path / f"a_000{channel}.nii.gz") for channel in (0, 1)]
    write_volume(files[0], make_ct(), (1.0, 1.0, 1.0))
    write_volume(files[1], make_mr(), (1.0, 1.0, 1.0))
    run = CMCPreprocessor(verbose=False).run_case
    both, _, _ = run(files, None, *managers(), DATASET_JSON)
    swapped, _, _ = run(files[::-1], None, *managers(), DATASET_JSON)
    np.testing.assert_array_equal(both, swapped)
    np.testing.assert_array_equal(both, run_arrays(np.stack([make_ct(), make_mr()]))[0])
    data, _, properties = run(files[1:], None, *managers(), DATASET_JSON)
    np.testing.assert_array_equal(data, run_arrays(np.stack([make_ct() * 0, make_mr()]))[0])
    assert properties["present_channels"] == [1]
    assert {"sitk_stuff", "shape_before_cropping", "bbox_used_for_cropping"} <= set(properties)  # for the way back


def test_plans_with_a_reader_of_other_axes(tmp_path, write_volume):
    write_volume(file := tmp_path / "a_0000.nii.gz", make_ct())
    plans = PlansManager({**plans_of(), "image_reader_writer": "NibabelIO"})
    with pytest.raises(
        ValueError, match=r"have NibabelIO as image_reader_writer, .*reads with CMCReaderWriter: plan ag"
    ):
        CMCPreprocessor(verbose=False).run_case(
            [str(file)], None, plans, plans.get_configuration("3d_fullres"), DATASET_JSON
        )


def test_a_label_goes_with_the_image(tmp_path, write_volume):
    label = np.zeros((10, 20, 24), np.uint8)
    label[3:5, 6:9, 7:9] = 2
    files = [str(tmp_path / f"a_000{channel}.nii.gz") for channel in (0, 1)]
    write_volume(files[0], make_ct())
    write_volume(files[1], make_ct() * 0)
    write_volume(tmp_path / "a.nii.gz", label)
    run = CMCPreprocessor(verbose=False).run_case
    _, seg, properties = run(files, str(tmp_path / "a.nii.gz"), *managers(), DATASET_JSON)
    np.testing.assert_array_equal(seg[0], label)
    assert len(properties["class_locations"][2]) == 12
    with pytest.raises(ValueError, match=r"Case a: the file of channel 1 \(MR\) is missing"):
        run(files[:1], str(tmp_path / "a.nii.gz"), *managers(), DATASET_JSON)
    write_volume(tmp_path / "a.nii.gz", label * 2)
    with pytest.raises(ValueError, match=r"a\.nii\.gz has the label value\(s\) 4"):
        run(files, str(tmp_path / "a.nii.gz"), *managers(), DATASET_JSON)


@pytest.fixture
def planned(make_dataset):
    """Folder of a dataset with a labelled CT, a labelled MR and two unlabelled cases, and its preprocessed folder."""
    label = np.zeros((10, 20, 24), np.uint8)
    label[3:5, 6:9, 7:9] = 1
    raw = make_dataset(
        {
            "ct": ({0: make_ct()}, label),
            "mr": ({1: make_mr()}, label),
            "u_both": ({0: make_ct(), 1: make_mr()}, None),
            "u_mr": ({1: make_mr()}, None),
        }
    )
    preprocessed = raw.parents[1] / "preprocessed" / raw.name
    preprocessed.mkdir()
    shutil.copy(raw / "dataset.json", preprocessed)
    (preprocessed / "CMCPlans.json").write_text(json.dumps(plans_of()))
    return raw, preprocessed


def preprocess():
    CMCPreprocessor(verbose=False).run(1, "3d_fullres", "CMCPlans", 1)


def test_a_dataset_with_unlabelled_cases(planned, capfd):
    raw, preprocessed = planned
    labeled = preprocessed / "CMCPlans_3d_fullres"
    unlabeled = preprocessed / "CMCPlans_3d_fullres_unlabeled"
    assert unlabeled_folder(str(labeled)) == str(unlabeled)
    unlabeled.mkdir()
    (unlabeled / "stale.pkl").write_text("")
    preprocess()
    assert "Preprocessing unlabelled: 100%" in capfd.readouterr().err
    assert sorted(nnUNetDatasetBlosc2.get_identifiers(str(labeled))) == ["ct", "mr"]
    assert sorted(nnUNetDatasetBlosc2.get_identifiers(str(unlabeled))) == ["u_both", "u_mr"]
    assert not (unlabeled / "stale.pkl").exists()
    data, _, _, properties = nnUNetDatasetBlosc2(str(unlabeled)).load_case("u_mr")
    np.testing.assert_array_equal(data[:], run_arrays(np.stack([make_mr() * 0, make_mr()]))[0])
    assert properties["present_channels"] == [1]
    assert "class_locations" not in properties
    assert load_pickle(str(labeled / "ct.pkl"))["body_box"] == [[2, 8], [4, 18], [3, 21]]

    shutil.rmtree(raw / "imagesUn")
    (raw / "imagesTr" / "ct_0001.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"the file of channel 1 .* is missing"):
        preprocess()
    assert len(list(labeled.iterdir())) == 6  # stopped before anything was touched


@pytest.fixture
def labeled_folder(planned, monkeypatch):
    """The labelled cases are preprocessed without doing it: nnU-Net's part is not what is tested."""
    folder = planned[1] / "CMCPlans_3d_fullres"
    monkeypatch.setattr(DefaultPreprocessor, "run", lambda *_: folder.mkdir())
    return folder


def test_nothing_half_written_is_left(planned, labeled_folder, write_volume):
    raw, preprocessed = planned
    preprocess()
    assert labeled_folder.is_dir()
    labeled_folder.rmdir()
    write_volume(raw / "imagesUn" / "u_mr_0001.nii.gz", make_mr() * 0)
    with pytest.raises(ValueError, match="Case u_mr is empty"):
        preprocess()
    assert {path.name for path in preprocessed.iterdir()} == {"dataset.json", "CMCPlans.json"}


def test_plans_that_were_moved_take_what_the_raw_dataset_has(planned, labeled_folder, capsys):
    """nnU-Net moves the plans alone, and reads the dataset.json and the split in the preprocessed folder."""
    raw, preprocessed = planned
    (preprocessed / "dataset.json").unlink()
    (raw / "splits_final.json").write_text("[]")
    preprocess()
    printed = capsys.readouterr().out
    for name in ("dataset.json", "splits_final.json"):
        assert (preprocessed / name).read_bytes() == (raw / name).read_bytes()
        assert f"Copied {raw / name} to {preprocessed}, where there was none." in printed
    labeled_folder.rmdir()
    (preprocessed / "splits_final.json").write_text("[{}]")
    preprocess()
    assert (preprocessed / "splits_final.json").read_text() == "[{}]", "what is there stays"


def test_files_that_begin_with_a_byte_order_mark(planned):
    for name in ("CMCPlans.json", "dataset.json"):
        file = planned[1] / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    preprocess()
    assert list((planned[1] / "CMCPlans_3d_fullres_unlabeled").glob("*.b2nd"))
    assert not (planned[1] / "CMCPlans.json").read_bytes().startswith(b"\xef"), "nnU-Net reads it, too, to train"


def test_what_is_unfinished_looks_so_at_every_moment(planned, labeled_folder, monkeypatch):
    """A kill may come before any removal: half of a folder must never pass for all of it."""
    unfinished = planned[1] / "CMCPlans_3d_fullres_unlabeled.unfinished"
    unfinished.mkdir()
    (unfinished / "u_mr.b2nd").write_text("half")
    seen = []

    def watched(function):
        return lambda *args, **kwargs: seen.append(unfinished.is_dir()) or function(*args, **kwargs)

    for module, name in ((os, "remove"), (os, "makedirs"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    preprocess()
    assert seen
    assert all(seen)
    assert not unfinished.exists()


def test_unlabelled_cases_show_what_dataset_json_says(planned, labeled_folder, write_volume):
    write_volume(planned[0] / "imagesUn" / "u_both_0001.nii.gz", make_mr() * 0)
    with pytest.raises(ValueError, match=r"Case u_both: all voxels of channel 1 \(MR\) are zero, but dataset\.json"):
        preprocess()
    assert not labeled_folder.exists()


def test_a_full_disk(planned):
    """In processes of its own: blosc2 keeps a lock after a write that failed, for which later ones would wait."""
    preprocess = Path(sysconfig.get_path("scripts")) / "nnUNetv2_preprocess"
    command = f"ulimit -f 12; {preprocess} -d 1 -c 3d_fullres -plans_name CMCPlans -np 1"  # KiB: the labelled cases fit
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True)
    assert done.returncode != 0
    assert "u_both.b2nd" in done.stdout + done.stderr
    assert "for lack of space: free some, or choose another disk" in done.stdout + done.stderr
    assert {path.name for path in planned[1].iterdir()} == {"dataset.json", "CMCPlans.json"}


def test_an_image_of_less_than_a_voxel(planned, labeled_folder, write_volume):
    write_volume(planned[0] / "imagesUn" / "u_mr_0001.nii.gz", make_mr(), spacing=(0.01, 0.01, 0.01))
    with pytest.raises(ValueError, match=r"Case u_mr: The image is .* mm large .* less than a voxel of the planned"):
        preprocess()
    assert not labeled_folder.exists()


@pytest.mark.parametrize(("channel", "modality"), [(0, "CT"), (1, "MR")])
def test_a_real_scan(shared_data, channel, modality, tmp_path):
    file = shutil.copy(shared_data / "abdomen_ct_mr" / f"{modality}_image.nii.gz", tmp_path / f"a_000{channel}.nii.gz")
    run = CMCPreprocessor(verbose=False).run_case
    data, _, properties = run([str(file)], None, *managers(spacing=(3.0, 3.0, 3.0)), DATASET_JSON)
    assert (data[1 - channel] == 0).all()
    assert (data[channel] != 0).all()
    box = np.array(properties["body_box"])
    assert (np.ptp(box, axis=1) > 0.6 * np.array(data.shape[1:])).all()  # the body fills most of a scan
    assert (np.ptp(box, axis=1) <= data.shape[1:]).all()
