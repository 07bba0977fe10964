import numpy as np
import pytest

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.reading.raw_case import check_case, read_case, read_label

parsed = DatasetDescription.from_dict
RNG = np.random.default_rng(0)
VOLUME = RNG.uniform(1, 2, (4, 5, 6)).astype(np.float32)


@pytest.fixture
def dataset_json():
    return {
        "channel_names": {"0": "CT", "1": "MR", "2": "PET"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "file_ending": ".nii.gz",
    }


@pytest.fixture
def write(tmp_path, write_volume):
    def write(name, array=VOLUME, **geometry):
        write_volume(tmp_path / name, array, **geometry)
        return str(tmp_path / name)

    return write


def test_the_channel_comes_from_the_name(write, dataset_json):
    files = [write("a_0002.nii.gz", VOLUME + 2), write("a_0000.nii.gz")]
    for order in (files, files[::-1]):
        data, properties = read_case(order, parsed(dataset_json))
        assert data.dtype == np.float32
        np.testing.assert_array_equal(data, [VOLUME, np.zeros_like(VOLUME), VOLUME + 2])
        assert properties["spacing"] == [1, 1, 1]
    alone, _ = read_case(files[:1], parsed(dataset_json))
    np.testing.assert_array_equal(alone, [VOLUME * 0, VOLUME * 0, VOLUME + 2])


def test_arrays_are_on_canonical_axes(write, dataset_json):
    file = write("a_0001.nii.gz", VOLUME, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))  # LPS
    data, _ = read_case([file], parsed(dataset_json))
    np.testing.assert_array_equal(data[1], VOLUME[:, ::-1, ::-1])


def test_a_labelled_case_needs_every_channel_file(write, dataset_json):
    files, label = [write("a_0000.nii.gz"), write("a_0002.nii.gz")], write("a.nii.gz", np.zeros((4, 5, 6), np.uint8))
    assert check_case(files, parsed(dataset_json)) == ("a", {0: files[0], 2: files[1]})
    with pytest.raises(ValueError, match=r"Case a: the file of channel 1 \(MR\) is missing from .*a volume of zeros"):
        check_case(files, parsed(dataset_json), label)


def test_names_that_make_no_case(write, dataset_json, tmp_path):
    with pytest.raises(ValueError, match=r"^A case has no channel file: give a CASE_0000.nii.gz"):
        check_case([], parsed(dataset_json))
    with pytest.raises(ValueError, match=r"Case a has no channel file"):
        check_case([], parsed(dataset_json), case="a")
    with pytest.raises(ValueError, match=r"a\.nii\.gz has no channel number: name it CASE_0000\.nii\.gz for CT"):
        check_case([write("a.nii.gz")], parsed(dataset_json))
    with pytest.raises(ValueError, match=r"a_0003\.nii\.gz is of channel 3, but .* 3 channel.*\(CT, MR, PET\)"):
        check_case([write("a_0003.nii.gz")], parsed(dataset_json))
    with pytest.raises(ValueError, match="are both of channel 1: remove one"):
        check_case([write("a_0001.nii.gz"), write("b/a_0001.nii.gz")], parsed(dataset_json))
    with pytest.raises(ValueError, match=r"Case a: .*a_0000.nii.gz cannot be read"):
        check_case([str(tmp_path / "a_0000.nii.gz")], parsed(dataset_json))


@pytest.mark.parametrize(
    ("array", "geometry", "text"),
    [
        (VOLUME[1:], {}, r"size \(6, 5, 3\) instead of \(6, 5, 4\)"),
        (VOLUME, {"spacing": (1.0, 1.0, 2.0)}, r"spacing \(1\.0, 1\.0, 2\.0\) instead of \(1\.0, 1\.0, 1\.0\)"),
        (VOLUME, {"origin": (0.0, 3.0, 0.0)}, r"origin \(0\.0, 3\.0, 0\.0\) instead of \(0\.0, 0\.0, 0\.0\)"),
        (VOLUME, {"direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)}, r"direction \(1\.0, 0\.0, "),
    ],
)
def test_a_case_is_on_one_grid(write, dataset_json, array, geometry, text):
    ok, other = write("a_0000.nii.gz"), write("a_0001.nii.gz", array, **geometry)
    with pytest.raises(ValueError, match=rf"Case a: .*a_0001\.nii\.gz is not on the grid of .*a_0000\.nii\.gz.*{text}"):
        read_case([ok, other], parsed(dataset_json))
    full = [ok, write("a_0001.nii.gz"), write("a_0002.nii.gz")]
    label = write("labels/a.nii.gz", np.ones_like(array), **geometry)
    with pytest.raises(ValueError, match=rf"Case a: .*labels/a\.nii\.gz is not on the grid of .*{text}"):
        read_case(full, parsed(dataset_json), label)


def test_a_hair_between_headers_is_no_difference(write, dataset_json):
    files = [write("a_0000.nii.gz"), write("a_0001.nii.gz", spacing=(1.0, 1.0, 1.0002), origin=(0.0, 0.01, 0.0))]
    data, _ = read_case(files, parsed(dataset_json))
    np.testing.assert_array_equal(data[1], VOLUME)


def test_voxels_that_show_nothing_or_are_not_numbers(write, dataset_json):
    with pytest.raises(ValueError, match=r"Case a is empty: all voxels of .*a_0000.nii.gz are zero; replace"):
        read_case([write("a_0000.nii.gz", VOLUME * 0)], parsed(dataset_json))
    for ending in (".nii.gz", ".mha"):  # from NIfTI, ITK reads NaN as 0
        dataset_json["file_ending"] = ending
        with pytest.raises(ValueError, match=rf"Case b: .*b_0000\{ending} has \d+ voxel\(s\) that are NaN or infinite"):
            read_case([write(f"b_0000{ending}", np.where(VOLUME > 1.9, np.nan, VOLUME))], parsed(dataset_json))


def test_voxels_may_not_contradict_dataset_json(write, dataset_json):
    dataset_json["cmc"] = {"version": 1, "present_channels": {"a": [0, 2]}}
    full = [write("a_0000.nii.gz"), write("a_0001.nii.gz", VOLUME * 0), write("a_0002.nii.gz", VOLUME * 0)]
    label = write("a.nii.gz", np.zeros((4, 5, 6), np.uint8))
    data, _ = read_case(full, parsed(dataset_json))  # a prediction may lack what the case of this name once had
    np.testing.assert_array_equal(data[0], VOLUME)
    with pytest.raises(ValueError, match=r"Case a: all voxels of channel 2 \(PET\) are zero, but dataset.json .* 0, 2"):
        read_case(full, parsed(dataset_json), label)
    write("a_0001.nii.gz")
    with pytest.raises(ValueError, match=r"a_0001.nii.gz has voxels other than zero, but .* channel\(s\) 0, 2"):
        read_case(full, parsed(dataset_json))


def test_label_values(write, dataset_json):
    labels = RNG.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    np.testing.assert_array_equal(read_label(write("a.nii.gz", labels), parsed(dataset_json))[0], labels)
    labels[0, 0, :2] = 7, 9
    with pytest.raises(ValueError, match=r"Case a: .*a\.nii\.gz has the label value\(s\) 7, 9, but .* names 0, 1, 2"):
        read_label(write("a.nii.gz", labels), parsed(dataset_json))
    dataset_json["labels"]["ignore"] = 3
    labels[0, 0, :2] = 3
    np.testing.assert_array_equal(read_label(write("a.nii.gz", labels), parsed(dataset_json))[0], labels)
    with pytest.raises(ValueError, match=r"value\(s\) 0\.5, "):
        read_label(write("a.nii.gz", labels + np.float32(0.5)), parsed(dataset_json))
    with pytest.raises(ValueError, match=r"value\(s\) 1\.00000012, 2\.00000024, but"):  # which is not read as 1, 2
        read_label(write("a.nii.gz", np.minimum(labels, 2) * np.nextafter(np.float32(1), 2)), parsed(dataset_json))
    labels = np.where(labels == 2, np.nan, labels)
    count = np.isnan(labels).sum()
    with pytest.raises(ValueError, match=rf"Case a: .*a\.nii\.gz has {count} voxel\(s\) that are NaN .*: replace them"):
        read_label(write("a.nii.gz", labels), parsed(dataset_json))


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_voxels_beyond_single_precision(write, dataset_json, ending):
    dataset_json["file_ending"] = ending
    with pytest.raises(ValueError, match=r"has 1 voxel\(s\) that are NaN or infinite: replace them"):
        read_case([write(f"a_0000{ending}", np.where(VOLUME.max() == VOLUME, 1e300, 1.0))], parsed(dataset_json))


def test_voxels_beyond_the_memory(write, dataset_json, monkeypatch):
    """What can be read, but not worked on."""
    file = write("a_0000.nii.gz")
    monkeypatch.setattr("nnunet_cmc.data.reading.reader_writer.sitk.DICOMOrient", out_of_memory)
    with pytest.raises(ValueError, match=r"Case a: .*a_0000\.nii\.gz cannot be read \(out of memory: .* 6 x 5 x 4 vox"):
        read_case([file], parsed(dataset_json))
    with pytest.raises(ValueError, match=r"Case a: .*a\.nii\.gz cannot be read \(out of memory: .* 6 x 5 x 4 voxels\)"):
        read_label(write("a.nii.gz", np.zeros((4, 5, 6), np.uint8)), parsed(dataset_json))


def out_of_memory(*_):
    raise MemoryError
