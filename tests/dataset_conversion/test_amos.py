"""AMOS from a miniature of its archive, and from synthetic scans over its real label maps."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.dataset_conversion.Dataset502_AMOS import convert_amos

ORGANS = [
    *("spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "arota", "postcava"),
    *("pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate/uterus"),
]
MRI = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
OBLIQUE = (-0.8, 0.6, 0, -0.6, -0.8, 0, 0, 0, 1)


@pytest.fixture
def make_archive(tmp_path, write_volume):
    """``make_archive({"Tr": [1, 507], ...})``: the archive with tiny scans of these numbers in each part."""

    def make(parts, values=range(16)):
        root = tmp_path / "amos22"
        root.mkdir()
        listed = {}
        for part, numbers in parts.items():
            key = {"Tr": "training", "Va": "validation", "Ts": "test"}[part]
            listed[key] = [{"image": f"./images{part}/amos_{n:04d}.nii.gz"} for n in numbers]
            for number in numbers:
                rng = np.random.default_rng(number)
                scan = rng.integers(-1000, 1000, (3, 4, 5)).astype(np.int16)
                geometry = {"direction": MRI if number <= 500 else OBLIQUE, "spacing": (0.7, 0.7, 5.0)}
                write_volume(root / f"images{part}" / f"amos_{number:04d}.nii.gz", scan, **geometry)
                if part != "Ts":
                    label = np.resize(np.array(values, np.uint8), scan.shape)
                    write_volume(root / f"labels{part}" / f"amos_{number:04d}.nii.gz", label, **geometry)
        labels = {str(value): name for value, name in enumerate(["background", *ORGANS])}
        (root / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}, "labels": labels, **listed}))
        return root

    return make


def content(folder):
    return json.loads((folder / "dataset.json").read_text())


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_each_scan_is_a_case_of_one_modality(make_archive, nnunet_folders, require_integrity):
    archive = make_archive({"Tr": [1, 5, 500, 507, 600], "Va": [8, 530], "Ts": [2, 590]})
    for part in ("imagesTr", "labelsTr"):
        (archive / part / "._amos_0001.nii.gz").touch()  # as macOS packs archives
    shutil.copyfile(archive / "imagesTr" / "amos_0001.nii.gz", archive / "imagesTr" / ".amos_0001.nii.gz")
    shutil.copytree(archive, archive.parent / ".amos22")
    folder = convert_amos(archive.parent)
    assert folder.name == "Dataset502_AMOS"
    training = ["amos_0001", "amos_0005", "amos_0500", "amos_0507", "amos_0600"]
    assert names(folder / "labelsTr") == [f"{case}.nii.gz" for case in training]
    assert names(folder / "imagesTr") == [f"{case}_000{channel}.nii.gz" for case in training for channel in (0, 1)]
    assert names(folder / "imagesTs") == ["amos_0008_0000.nii.gz", "amos_0530_0001.nii.gz"]
    assert names(folder / "labelsTs") == ["amos_0008.nii.gz", "amos_0530.nii.gz"]
    assert not (folder / "imagesUn").exists()
    dataset_json = content(folder)
    present = dataset_json["cmc"]["present_channels"]
    assert present == {case: [int(case > "amos_0500")] for case in [*training, "amos_0008", "amos_0530"]}
    assert dataset_json["labels"] == {"background": 0} | {name: i for i, name in enumerate(ORGANS, 1)}
    assert dataset_json["channel_names"] == {"0": "CT", "1": "MRI"}
    assert dataset_json["licence"] == "CC BY 4.0"
    assert "10.5281/zenodo.7262581" in dataset_json["reference"]
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert sorted(fold["train"] + fold["val"]) == training
    require_integrity(folder)
    source = archive / "imagesTr" / "amos_0500.nii.gz"
    assert (folder / "imagesTr" / "amos_0500_0000.nii.gz").read_bytes() == source.read_bytes()
    assert "amos_0507.nii.gz,unchanged" in (folder / "manifest.csv").read_text()


def test_says_what_it_leaves_out(make_archive, nnunet_folders, capsys):
    archive = make_archive({"Tr": [1, 507], "Va": [8], "Ts": [2]})
    (archive / "imagesTr" / "notes.txt").touch()
    (archive / "imagesVa" / "amos_0008.nii.gz").rename(archive / "imagesVa" / "amos_0009.nii.gz")
    (archive / "labelsVa" / "amos_0008.nii.gz").rename(archive / "labelsVa" / "amos_0009.nii.gz")
    convert_amos(archive, dry_run=True)
    said = capsys.readouterr().out
    assert f"Left out, not named as a scan of AMOS: {archive / 'imagesTr' / 'notes.txt'} (1)" in said
    assert f"having no public label (--unlabeled uses them): {archive / 'imagesTs' / 'amos_0002.nii.gz'} (1)" in said
    assert f"lists 1 scan(s) that are not there, such as {archive / 'imagesVa' / 'amos_0008.nii.gz'}." in said
    assert names(nnunet_folders / "raw") == []


def test_test_scans_as_unlabelled_ones(make_archive, nnunet_folders):
    folder = convert_amos(make_archive({"Tr": [1, 507], "Va": [8], "Ts": [2, 590]}), unlabeled=True)
    assert names(folder / "imagesUn") == ["amos_0002_0000.nii.gz", "amos_0590_0001.nii.gz"]


def test_organs_are_renumbered_and_the_others_background(make_archive, nnunet_folders):
    archive = make_archive({"Tr": [1, 507]})
    folder = convert_amos(archive, organs=["Liver", "spleen", "left_kidney"])
    assert content(folder)["labels"] == {"background": 0, "spleen": 1, "left kidney": 2, "liver": 3}
    before = sitk.GetArrayFromImage(sitk.ReadImage(str(archive / "labelsTr" / "amos_0507.nii.gz")))
    after = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / "amos_0507.nii.gz")))
    np.testing.assert_array_equal(after, np.select([before == 1, before == 3, before == 6], [1, 2, 3]))
    with pytest.raises(ValueError, match="AMOS has no organ 'heart': its organs are spleen, right kidney"):
        convert_amos(archive, 503, organs=["spleen", "heart"])


def test_paper_draws_by_its_seed(make_archive, nnunet_folders, capsys):
    archive = make_archive(
        {"Tr": [*range(1, 46), *range(507, 547)], "Va": [*range(101, 123), *range(571, 591)], "Ts": [200]}
    )
    folders = [convert_amos(archive, i, paper=True, seed=seed) for i, seed in enumerate((0, 0, 1), 1)]
    assert "Drawn with seed 1: 80 scans for training, 40 for testing." in capsys.readouterr().out
    drawn = []
    for folder in folders:
        cases = {part: [n.removesuffix(".nii.gz") for n in names(folder / f"labels{part}")] for part in ("Tr", "Ts")}
        ct = {part: sum(case <= "amos_0500" for case in cases[part]) for part in cases}
        assert ct == {"Tr": 40, "Ts": 20}
        assert {part: len(cases[part]) for part in cases} == {"Tr": 80, "Ts": 40}
        drawn.append(cases)
    assert drawn[0] == drawn[1] != drawn[2]


def test_too_few_scans_for_the_paper(make_archive, nnunet_folders):
    with pytest.raises(ValueError, match="40 CT scans of imagesTr are to be drawn, but there are 2"):
        convert_amos(make_archive({"Tr": [1, 2, 507], "Va": [8]}), paper=True)


def test_archives_that_make_no_sense(make_archive, nnunet_folders, tmp_path):
    archive = make_archive({"Tr": [1, 507], "Va": [8]})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no imagesTr: give the folder of the unpacked archive"):
        convert_amos(tmp_path / "empty")
    for copy in "ab":
        (tmp_path / "two" / copy / "imagesTr").mkdir(parents=True)
    with pytest.raises(ValueError, match="two has 2 folders with imagesTr in them"):
        convert_amos(tmp_path / "two")
    (archive / "imagesTr" / "amos_0001.nii").touch()
    with pytest.raises(ValueError, match=r"imagesTr/amos_0001.nii and .*amos_0001.nii.gz are both amos_0001: remove"):
        convert_amos(archive)
    (archive / "imagesTr" / "amos_0001.nii").unlink()
    (archive / "labelsTr" / "amos_0001.nii.gz").rename(tmp_path / "kept.nii.gz")
    with pytest.raises(ValueError, match=r"1 scan\(s\) have no label in .*labelsTr, such as .*amos_0001.nii.gz"):
        convert_amos(archive)
    (tmp_path / "kept.nii.gz").rename(archive / "labelsTr" / "amos_0001.nii.gz")
    (archive / "imagesTr" / "amos_0507.nii.gz").rename(archive / "imagesTr" / "amos_0503.nii.gz")
    with pytest.raises(ValueError, match=r"amos_0503 is neither CT \(up to 500\) nor MRI \(from 507\)"):
        convert_amos(archive)
    (archive / "dataset.json").unlink()
    with pytest.raises(ValueError, match=r"There is no .*dataset.json, which names the organs"):
        convert_amos(archive)


def test_paths_in_its_list_lead_nowhere(make_archive, nnunet_folders, tmp_path):
    archive = make_archive({"Tr": [1, 507]})
    listed = json.loads((archive / "dataset.json").read_text())
    listed["training"] += [{"image": "../../../etc/amos_0009.nii.gz"}, "/etc/passwd", {"label": 3}, None]
    (archive / "dataset.json").write_text(json.dumps(listed))
    before = set(tmp_path.rglob("*"))
    folder = convert_amos(archive.parent)  # the folder above will do, too
    assert all(folder in path.parents or path == folder for path in set(tmp_path.rglob("*")) - before)
    assert names(folder / "labelsTr") == ["amos_0001.nii.gz", "amos_0507.nii.gz"]


@pytest.fixture
def real_archive(shared_data, make_archive, write_volume):
    """Real label maps of AMOS, thinned out in plane, with scans in which each organ has its own brightness."""
    archive = make_archive({})
    sources = {"amos_0002_CT": 2, "amos_00056_CT": 56, "amos_0002_MRI": 507, "amos_00050_MRI": 555}
    for name, number in sources.items():
        label = sitk.ReadImage(str(shared_data / "amos_labels" / f"{name}_gt.nii.gz"))
        thick = int(np.argmax(label.GetSpacing()))
        label = label[tuple(slice(None, None, 1 if axis == thick else 4) for axis in range(3))]
        rng = np.random.default_rng(number)
        array = sitk.GetArrayFromImage(label)
        scan = sitk.GetImageFromArray((50 + 60 * array + rng.normal(0, 10, array.shape)).astype(np.int16))
        scan.CopyInformation(label)
        part = "Va" if number in (56, 555) else "Tr"
        for kind, image in (("images", scan), ("labels", label)):
            (archive / f"{kind}{part}").mkdir(exist_ok=True)
            sitk.WriteImage(image, str(archive / f"{kind}{part}" / f"amos_{number:04d}.nii.gz"), True)
    return archive


def test_real_grids_orientations_and_labels(real_archive, nnunet_folders, require_integrity):
    folder = convert_amos(real_archive, organs=["spleen", "right kidney", "left kidney", "liver"])
    require_integrity(folder)
    for part, source_part, number in (("Tr", "Tr", 2), ("Tr", "Tr", 507), ("Ts", "Va", 56), ("Ts", "Va", 555)):
        source = sitk.ReadImage(str(real_archive / f"labels{source_part}" / f"amos_{number:04d}.nii.gz"))
        written = sitk.ReadImage(str(folder / f"labels{part}" / f"amos_{number:04d}.nii.gz"))
        for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(written, geometry)() == pytest.approx(getattr(source, geometry)(), abs=1e-5)
        wanted = sitk.ChangeLabel(source, {1: 1, 2: 2, 3: 3, 6: 4} | {v: 0 for v in (4, 5, *range(7, 16))})
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(wanted))
    spleens = (folder / "labelsTs" / "amos_0555.nii.gz", folder / "labelsTr" / "amos_0507.nii.gz")
    assert [(sitk.GetArrayFromImage(sitk.ReadImage(str(file))) == 1).any() for file in spleens] == [False, True]
