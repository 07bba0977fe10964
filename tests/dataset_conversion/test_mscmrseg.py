"""MS-CMRSeg from miniatures of its archives: names, oblique grids, label values, and resampling between sequences."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.dataset_conversion.Dataset501_MSCMRSeg import convert_mscmrseg

SHAPE = (5, 18, 20)  # z, y, x
GEOMETRY = {  # short axis views of the heart are oblique, and each sequence has its own
    "LGE": {"spacing": (1.0, 1.0, 5.0), "origin": (-20.0, 30.0, 10.0), "turn": (0.5, -0.3, 0.2)},
    "C0": {"spacing": (1.2, 1.2, 6.0), "origin": (-21.0, 28.0, 8.0), "turn": (0.5, -0.25, 0.25)},
    "T2": {"spacing": (1.3, 1.3, 7.0), "origin": (-22.0, 29.0, 7.0), "turn": (0.55, -0.3, 0.2)},
}
FOLDERS = {"LGE": "lgegt", "C0": "c0gt", "T2": "t2gt"}


def grid_of(sequence, pixel=sitk.sitkInt16):
    geometry = GEOMETRY[sequence]
    image = sitk.Image(SHAPE[::-1], pixel)
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(sitk.Euler3DTransform((0, 0, 0), *geometry["turn"]).GetMatrix())
    return image


def world(image):
    """Millimetres of each voxel's centre, (z, y, x, 3)."""
    axes = np.meshgrid(*(np.arange(n) for n in image.GetSize()), indexing="ij")
    points = np.stack(axes, -1) * image.GetSpacing() @ np.reshape(image.GetDirection(), (3, 3)).T + image.GetOrigin()
    return points.transpose(2, 1, 0, 3)


def scene(points):
    """What every sequence shows: a ramp, which linear interpolation repeats exactly."""
    return 1000 + points @ (3.0, 5.0, 2.0)


def write(file, array, grid):
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(grid)
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file), True)


@pytest.fixture
def make_archive(tmp_path):
    """``make_archive(labelled={"LGE": [1], ...}, patients=3)``: the archive of 2019."""

    def make(labelled, patients=3, values=(0, 200, 500, 600)):
        root = tmp_path / "C0LET2_nii45_for_challenge19"
        for patient in range(1, patients + 1):
            for sequence in GEOMETRY:
                grid = grid_of(sequence)
                scan = scene(world(grid)).round().astype(np.int16) + np.int16(patient - 1)  # no two are equal
                write(root / "c0t2lge" / f"patient{patient}_{sequence}.nii.gz", scan, grid)
                if patient in labelled.get(sequence, ()):
                    label = np.resize(np.array(values, np.int16), SHAPE)
                    write(root / FOLDERS[sequence] / f"patient{patient}_{sequence}_manual.nii.gz", label, grid)
        return root

    return make


def read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def names(folder):
    return sorted(file.name.removesuffix(".nii.gz") for file in folder.glob("*.gz"))


def content(folder):
    return json.loads((folder / "dataset.json").read_text())


def test_a_case_for_each_scan(make_archive, nnunet_folders, require_integrity):
    folder = convert_mscmrseg(make_archive({"LGE": [1], "C0": [1, 2], "T2": [1, 2]}))
    assert folder.name == "Dataset501_MSCMRSeg"
    assert names(folder / "labelsTr") == ["patient1_LGE", "patient1_bSSFP", "patient2_bSSFP"]
    assert names(folder / "imagesUn") == ["patient2_LGE_0000", "patient3_LGE_0000", "patient3_bSSFP_0001"]
    assert not (folder / "imagesTs").exists()
    dataset_json = content(folder)
    assert dataset_json["channel_names"] == {"0": "LGE", "1": "bSSFP"}
    classes = {"myocardium": 1, "left ventricle": 2, "right ventricle": 3}
    assert dataset_json["labels"] == {"background": 0, **classes}
    assert dataset_json["cmc"]["subjects"]["patient2_bSSFP"] == "patient2"
    assert dataset_json["cmc"]["present_channels"]["patient2_bSSFP"] == [1]
    written = sitk.ReadImage(str(folder / "labelsTr" / "patient1_bSSFP.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), np.resize([0, 1, 2, 3], SHAPE))
    assert written.GetDirection() == pytest.approx(grid_of("C0").GetDirection(), abs=1e-6)
    require_integrity(folder)


def test_every_sequence_and_its_order(make_archive, nnunet_folders):
    archive = make_archive({"LGE": [1], "C0": [1], "T2": [1]}, patients=1)
    folder = convert_mscmrseg(archive, sequences=["T2", "LGE", "bSSFP"])
    assert content(folder)["channel_names"] == {"0": "T2", "1": "LGE", "2": "bSSFP"}
    assert content(folder)["cmc"]["present_channels"] == {
        "patient1_T2": [0],
        "patient1_LGE": [1],
        "patient1_bSSFP": [2],
    }


def test_registered_sequences_lie_on_the_grid_of_the_label(make_archive, nnunet_folders, require_integrity):
    archive = make_archive({"LGE": [1], "C0": [1, 2]})
    folder = convert_mscmrseg(archive, layout="registered")
    assert names(folder / "labelsTr") == ["patient1_LGE", "patient1_bSSFP", "patient2_bSSFP"]
    assert names(folder / "imagesUn") == ["patient3_LGE_0000", "patient3_LGE_0001"]
    cmc = content(folder)["cmc"]
    assert set(map(tuple, cmc["present_channels"].values())) == {(0, 1)}
    assert cmc["subjects"]["patient1_LGE"] == cmc["subjects"]["patient1_bSSFP"] == "patient1"
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert {case.split("_")[0] for case in fold["train"]}.isdisjoint(case.split("_")[0] for case in fold["val"])
    for case, own, other, channel in (("patient1_LGE", "LGE", "C0", 1), ("patient1_bSSFP", "C0", "LGE", 0)):
        grid = grid_of(own)
        image = sitk.ReadImage(str(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"))
        assert image.GetSize() == grid.GetSize()
        for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(image, geometry)() == pytest.approx(getattr(grid, geometry)(), abs=1e-4)
        array, moved = sitk.GetArrayFromImage(image), grid_of(other)
        indices = (world(grid) - moved.GetOrigin()) @ np.reshape(moved.GetDirection(), (3, 3)) / moved.GetSpacing()
        inside = ((indices >= 0) & (indices <= np.array(moved.GetSize()) - 1)).all(axis=-1)
        outside = ((indices < -0.6) | (indices > np.array(moved.GetSize()) - 0.4)).any(axis=-1)
        assert inside.mean() > 0.3
        assert np.abs(array - scene(world(grid)))[inside].max() <= 1.5  # two roundings
        assert not array[outside].any()
        moved = sitk.ReadImage(str(archive / "c0t2lge" / f"patient1_{other}.nii.gz"))
        np.testing.assert_array_equal(array, sitk.GetArrayFromImage(sitk.Resample(moved, grid)))
        np.testing.assert_array_equal(read(folder / "labelsTr" / f"{case}.nii.gz"), np.resize([0, 1, 2, 3], SHAPE))
    require_integrity(folder)


def test_masks_survive_the_way_to_another_grid_and_back(shared_data, tmp_path, nnunet_folders):
    """A real organ as LGE, and seen by bSSFP on an oblique grid: back on the grid of LGE it is the same organ."""
    source = sitk.ReadImage(str(shared_data / "amos_labels" / "amos_00050_MRI_gt.nii.gz"))[::4, ::4]
    liver = sitk.Cast(source == 6, sitk.sitkInt16) * 1000 + 100
    turned = sitk.Euler3DTransform(source.TransformContinuousIndexToPhysicalPoint((40, 36, 36)), 0.2, -0.15, 0.3)
    oblique = sitk.Resample(liver, source, turned, sitk.sitkLinear, 100.0)
    oblique.SetOrigin(turned.TransformPoint(source.GetOrigin()))
    direction = np.reshape(turned.GetMatrix(), (3, 3)) @ np.reshape(source.GetDirection(), (3, 3))
    oblique.SetDirection(direction.ravel())
    scans = tmp_path / "archive"
    scans.mkdir()
    sitk.WriteImage(liver, str(scans / "patient1_LGE.nii.gz"), True)
    sitk.WriteImage(sitk.Cast(source == 6, sitk.sitkUInt8), str(scans / "patient1_LGE_manual.nii.gz"), True)
    sitk.WriteImage(oblique, str(scans / "patient1_C0.nii.gz"), True)
    folder = convert_mscmrseg(scans, layout="registered")
    image = sitk.ReadImage(str(folder / "imagesTr" / "patient1_LGE_0001.nii.gz"))
    bssfp, lge = (sitk.ReadImage(str(scans / f"patient1_{name}.nii.gz")) for name in ("C0", "LGE"))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(sitk.Resample(bssfp, lge, sitk.Transform()))
    )
    back, truth = sitk.GetArrayFromImage(image) > 600, sitk.GetArrayFromImage(source) == 6
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.97
    written = read(folder / "labelsTr" / "patient1_LGE.nii.gz")
    np.testing.assert_array_equal(written == 3, truth)  # 1 is the right ventricle in later releases


def test_names_and_values_of_later_releases(tmp_path, nnunet_folders, capsys):
    root, grid = tmp_path / "mscmr", grid_of("LGE")
    for folder, number in (("train", 2), ("test", 7)):
        for sequence in ("DE", "C0"):
            scan = scene(world(grid)).astype(np.int16)
            write(root / folder / "images" / f"subject{number}_{sequence}.nii.gz", scan, grid)
            label = np.resize(np.array((0, 1, 2, 3), np.uint8), SHAPE)
            write(root / folder / "labels" / f"subject{number}_{sequence}_manual.nii.gz", label, grid)
    write(root / "train" / "labels" / "subject2_DE_scribble.nii.gz", label, grid)
    write(root / ".Trash" / "subject2_DE.nii.gz", scan, grid)
    folder = convert_mscmrseg(root)
    assert names(folder / "labelsTr") == ["subject2_LGE", "subject2_bSSFP", "subject7_LGE", "subject7_bSSFP"]
    np.testing.assert_array_equal(read(folder / "labelsTr" / "subject2_LGE.nii.gz"), np.resize([0, 3, 1, 2], SHAPE))
    assert "subject2_DE_scribble.nii.gz (1)" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["separate", "registered"])
def test_one_label_of_all_sequences(tmp_path, nnunet_folders, layout):
    grid = grid_of("LGE")
    for number in (101, 102):
        for sequence in ("C0", "DE", "T2"):
            scan = scene(world(grid)).astype(np.int16)
            write(tmp_path / "train25" / f"myops_training_{number}_{sequence}.nii.gz", scan, grid)
        label = np.resize(np.array((0, 200, 500, 600, 1220, 2221), np.int16), SHAPE)
        write(tmp_path / "train25_myops_gd" / f"myops_training_{number}_gd.nii.gz", label, grid)
    folder = convert_mscmrseg(tmp_path, layout=layout)
    case = "myops_training_101_LGE"
    assert len(names(folder / "labelsTr")) == {"separate": 4, "registered": 2}[layout]
    assert content(folder)["cmc"]["present_channels"][case] == {"separate": [0], "registered": [0, 1]}[layout]
    np.testing.assert_array_equal(read(folder / "labelsTr" / f"{case}.nii.gz"), np.resize([0, 1, 2, 3, 1, 1], SHAPE))


@pytest.mark.parametrize("layout", ["separate", "registered"])
@pytest.mark.parametrize(("lge", "tested_lge"), [(range(1, 46), 5), (range(1, 6), 2)])
def test_paper_split(make_archive, nnunet_folders, capsys, layout, lge, tested_lge):
    archive = make_archive({"LGE": lge, "C0": range(1, 46 if tested_lge == 5 else 36)}, patients=45)
    folder = convert_mscmrseg(archive, layout=layout, paper=True, seed=4)
    cmc = content(folder)["cmc"]
    test = {cmc["subjects"][name.rsplit("_", 1)[0]] for name in names(folder / "imagesTs")}
    other = set(cmc["subjects"].values()) - test
    assert (len(test), len(other)) == (5, 40)
    training = {name: cmc["subjects"][name] for name in names(folder / "labelsTr")}
    assert test.isdisjoint(training.values())
    labelled = names(folder / "labelsTs")
    assert sum(name.endswith("_LGE") for name in labelled) == tested_lge
    assert sum(name.endswith("_bSSFP") for name in labelled) == 5
    said = capsys.readouterr().out
    assert f"Drawn with seed 4 for testing: {', '.join(sorted(test))}. " in said
    assert f"Labelled among them: LGE of {tested_lge}, bSSFP of 5." in said


def test_archives_that_make_no_sense(make_archive, nnunet_folders, tmp_path):
    archive = make_archive({"LGE": [1], "C0": [1]})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"There is no scan of LGE or bSSFP in .*empty, such as patient1_LGE.nii.gz"):
        convert_mscmrseg(tmp_path / "empty")
    with pytest.raises(ValueError, match="45 patients are to be drawn, but there are 3: convert without --paper"):
        convert_mscmrseg(archive, paper=True)
    scan = archive / "c0t2lge" / "patient1_LGE.nii.gz"
    (archive / "again").mkdir()
    (archive / "again" / "patient1_DE.nii.gz").write_bytes(scan.read_bytes())
    with pytest.raises(ValueError, match=r"again/patient1_DE.nii.gz and .*c0t2lge/patient1_LGE.nii.gz are both of pat"):
        convert_mscmrseg(archive)
    (archive / "again" / "patient1_DE.nii.gz").unlink()
    scan.rename(archive / "patient9_LGE.nii.gz")
    with pytest.raises(ValueError, match=r"lgegt/patient1_LGE_manual.nii.gz is a label without a scan: unpack"):
        convert_mscmrseg(archive)


def test_defects_are_listed_at_once(make_archive, nnunet_folders):
    archive = make_archive({"LGE": [1, 2, 3], "C0": [1]})
    shifted = sitk.ReadImage(str(archive / "lgegt" / "patient1_LGE_manual.nii.gz"))
    shifted.SetOrigin((-19.0, 30.0, 10.0))
    sitk.WriteImage(shifted, str(archive / "lgegt" / "patient1_LGE_manual.nii.gz"))
    write(archive / "lgegt" / "patient2_LGE_manual.nii.gz", np.full(SHAPE, 700, np.int16), grid_of("LGE"))
    write(archive / "lgegt" / "patient3_LGE_manual.nii.gz", np.zeros(SHAPE, np.int16), grid_of("LGE"))
    (archive / "c0t2lge" / "patient2_C0.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"for 4 problem\(s\)") as error:
        convert_mscmrseg(archive)
    problems = str(error.value).splitlines()[1:]
    expected = ("is not on the grid", "[700]", "cannot be read", "shows no class at all")
    assert all(text in problem for text, problem in zip(expected, problems, strict=True))
    assert not list((nnunet_folders / "raw").iterdir())
