import pytest

from nnunet_cmc.data.format.scan_folder import by_case, by_channel, files_of, scans_of, split_name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a_0000.nii.gz", ("a", 0)),
        ("x/a_b_0013.nii.gz", ("a_b", 13)),
        ("a_0001_0000.nii.gz", ("a_0001", 0)),
        ("a.nii.gz", None),
        ("a_000.nii.gz", None),
        ("_0000.nii.gz", None),
        ("a_0000.nrrd", None),
    ],
)
def test_split_name(name, found):
    assert split_name(name, ".nii.gz") == found


def make(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True) if name.endswith("/") else (folder / name).touch()
    return folder


NOT_READ = (
    "x_0000.nii", "x_0000.NII.GZ", "x_0000.Nii.gz", "x_0000.nrrd", "x_0000.nhdr", "x_0000.mha", "x_0000.MHD", "x.dcm",
    "x_0000.img", "x_0000.hdr", "x_0000.img.gz", "x_0000.nii.bz2", "x_0000.gipl.gz", "x_0000.tif", "x_0000.png",
    "x_0000.mgz", "x.IMA", "x_0000", "x_0000.gz", "x.nii", "x_0000/", "x_0000.nii.gz/",
)  # fmt: skip


@pytest.mark.parametrize("name", NOT_READ)
def test_what_looks_like_a_scan_is_not_left_out_without_a_word(tmp_path, name):
    make(tmp_path, "x_0001.nii.gz", name)
    path = tmp_path / name
    for read in (files_of, scans_of):
        with pytest.raises(ValueError) as caught:
            read(tmp_path, ".nii.gz")
        assert str(caught.value).startswith(f"{path} looks like a scan, but is no file that ends in .nii.gz, so it")


def test_several_are_all_named(tmp_path):
    make(tmp_path, "x_0000.nii", "y_0000.mha", "y_0001.nii.gz")
    with pytest.raises(ValueError, match=r"x_0000\.nii looks like .*\n.*y_0000\.mha looks like"):
        files_of(tmp_path, ".nii.gz")


OTHERS = (".DS_Store", "._x_0000.nii.gz", "._x_0001.nii", "readme.txt", "x_0001.json", "x_0001.bval", "preview.png",
          "out/", "results_2024/", "x_0001.raw")  # fmt: skip


def test_what_is_no_scan_and_what_begins_with_a_dot_is_passed_over(tmp_path):
    make(tmp_path, "y_0000.nii.gz", "x_0001.nii.gz", "x_0000.nii.gz", *OTHERS)
    files = files_of(tmp_path, ".nii.gz")
    assert files == [str(tmp_path / name) for name in ("x_0000.nii.gz", "x_0001.nii.gz", "y_0000.nii.gz")]
    assert by_case(files, ".nii.gz") == {"x": files[:2], "y": files[2:]}
    assert by_channel([*files[1::-1], "x.nii.gz"], ".nii.gz") == {0: files[0], 1: files[1]}
    assert files_of(tmp_path / "none", ".nii.gz") == []


def test_the_second_file_of_a_pair_is_read_with_the_first(tmp_path):
    make(tmp_path, "x_0000.hdr", "x_0000.img")
    assert scans_of(tmp_path, ".hdr") == [str(tmp_path / "x_0000.hdr")]
    assert scans_of(tmp_path, ".img") == [str(tmp_path / "x_0000.img")]
    with pytest.raises(ValueError, match=r"x_0000\.hdr looks .*\n.*x_0000\.img looks"):
        scans_of(tmp_path, ".nii")


@pytest.mark.parametrize("scan", ["MR/x_0001.nii.gz", "MR/series 1/IM.dcm", "labels/x.nii", "results/a/b/c.mha"])
def test_a_folder_that_holds_scans_is_not_left_out_without_a_word(tmp_path, scan):
    folder = tmp_path / scan.split("/")[0]
    (tmp_path / scan).parent.mkdir(parents=True)
    make(tmp_path, "x_0000.nii.gz", scan)
    with pytest.raises(ValueError) as caught:
        scans_of(tmp_path, ".nii.gz")
    assert str(caught.value).startswith(f"{folder} is a folder that holds {tmp_path / scan}, which looks like a scan")


def test_predictions_and_what_begins_with_a_dot_may_lie_in_a_folder_of_scans(tmp_path):
    for folder in ("out/fold", ".trash", "notes"):
        (tmp_path / folder).mkdir(parents=True)
    make(tmp_path, "x_0000.nii.gz", "out/x.nii.gz", "out/fold/BRATS_0001.nii.gz", ".trash/y_0000.nii.gz")
    make(tmp_path, "notes/letter.txt", "notes/._x_0001.nii.gz", "out/dataset.json")
    assert scans_of(tmp_path, ".nii.gz") == [str(tmp_path / "x_0000.nii.gz")]
