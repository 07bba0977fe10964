"""nnunet_cmc inspect: the tables, and the pictures with what each case is."""

import argparse
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from nnunet_cmc.commands import inspect
from nnunet_cmc.utils.files import to_json

RNG = np.random.default_rng(0)
SHAPE = (6, 12, 14)


def scan(low=0, high=100):
    return RNG.integers(low, high, SHAPE).astype(np.int16)


def label(*values):
    array = np.zeros(SHAPE, np.uint8)
    for value in values:
        array[2:4, 3 * value : 3 * value + 2, 2:7] = value  # 20 voxels
    return array


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        parser = argparse.ArgumentParser()
        inspect.add_arguments(parser)
        return inspect.run(parser.parse_args(["-d", "1", *words]))

    return run


def tables(said):
    """Rows of words of each table that was printed."""
    return [[line.split() for line in table.splitlines()] for table in said.strip().split("\n\n")]


def test_what_the_dataset_holds(make_dataset, write_volume, run, capsys):
    cases = {
        "a": ({0: scan(-1000, 100)}, label(1, 2)),
        "b": ({0: scan(-1000, 100), 1: scan(1)}, label(1)),
        "c": ({1: scan(1)}, None),
    }
    folder = make_dataset(cases, spacing=(2.0, 2.0, 5.0))
    write_volume(folder / "imagesTs" / "t_0001.nii.gz", scan(1), (1.0, 1.0, 5.0))
    outcome = run()
    parts, grids, volumes, _ = tables(capsys.readouterr().out)
    assert parts[0] == ["cases", "labelled", "subjects", "CT", "MR"]
    assert parts[2:] == [
        ["training", "2", "2", "2", "2", "1"],
        ["unlabelled", "1", "0", "1", "0", "1"],
        ["test", "1", "0", "1", "0", "1"],
    ]
    assert " ".join(grids[2]).startswith("CT 14, 12, 6 2, 2, 5 -9")
    assert " ".join(grids[3]).startswith("MR 14, 12, 6 2 (1 .. 2), 2 (1 .. 2), 5 ")
    assert volumes[2:] == [["liver", "2", "of", "2", "0.4"], ["spleen", "1", "of", "2", "0.4"]]  # 20 voxels of 20 mm3
    assert outcome.written == [Path("inspect_Dataset001_Test/index.html")]
    a, *_, t = json.loads(to_json(outcome.numbers))["cases"]
    assert a["images"].keys() == a["percentiles_1_99"].keys() == {"CT"}
    assert a["volumes_ml"] == pytest.approx({"liver": 0.4, "spleen": 0.4})
    assert (t["name"], t["part"], t["label"], t["size"], t["spacing_mm"]) == ("t", "test", None, [14, 12, 6], [1, 1, 5])


def test_the_page_shows_a_row_for_each_case(make_dataset, run, tmp_path):
    make_dataset({f"case_{i:02d}": ({i % 2: scan(1)}, label(1, 2)) for i in range(12)})
    run("-o", "out")
    page = (tmp_path / "out" / "index.html").read_text()
    pictures = sorted((tmp_path / "out" / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["001.png", "002.png"]
    assert all(f'src="pictures/{picture.name}"' in page for picture in pictures)
    assert "training    12" in page
    ten, two = (matplotlib.image.imread(picture) for picture in pictures)
    assert ten.shape[1] == two.shape[1]
    assert (ten.shape[0] - two.shape[0]) / 8 == pytest.approx(110 * (2.4 * 12 / 14 + 0.15), rel=0.02)


def test_colours_only_where_there_is_a_label(make_dataset, run, tmp_path):
    make_dataset({"a": ({0: scan(1)}, label(1))} | {"u": ({0: scan(1)}, None), "v": ({1: scan(1)}, None)})
    run("-o", "out")
    picture = matplotlib.image.imread(tmp_path / "out" / "pictures" / "001.png")[..., :3]
    colour = np.ptp(picture, axis=2) > 0.2
    rows = np.array_split(colour[40:-40], 3)
    assert rows[0].sum() > 500
    assert rows[1].sum() == rows[2].sum() == 0


def test_datasets_that_cannot_be_looked_at(make_dataset, run):
    with pytest.raises(ValueError, match="There is not exactly one dataset 1"):
        run()
    folder = make_dataset({"a": ({0: scan(1)}, label(1)), "b": ({1: scan(1)}, label(1))})
    (folder / "labelsTr" / "a.nii.gz").unlink()
    (folder / "imagesTr" / "b_0001.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError) as error:
        run()
    expected, found = ("its label", "cannot be read"), str(error.value).splitlines()
    assert all(text in line for text, line in zip(expected, found, strict=True))


@pytest.mark.parametrize("shift", [0.05, 0.5])  # of voxels of 1 mm: within and beyond the one tolerance
def test_a_label_beside_its_scan(make_dataset, run, write_volume, shift):
    folder = make_dataset({"a": ({0: scan(1)}, label(1)), "b": ({1: scan(1)}, label(1))})
    write_volume(folder / "imagesTs" / "t_0001.nii.gz", scan(1))
    write_volume(folder / "labelsTs" / "t.nii.gz", label(1), origin=(shift, 0.0, 0.0))
    if shift < 0.1:
        run()
    else:
        with pytest.raises(ValueError, match=r"Case t: .*labelsTs/t.nii.gz is not on the grid of .*origin \(0.5, 0"):
            run()


def test_files_that_break_off(make_dataset, run):
    folder = make_dataset({"a": ({0: scan(1)}, label(1)), "b": ({1: scan(1)}, label(1))})
    file = folder / "imagesTr" / "b_0001.nii.gz"
    file.write_bytes(file.read_bytes()[:-100])  # ITK would fill up with zeros
    with pytest.raises(ValueError, match=r"Case b: .*b_0001.nii.gz cannot be read: convert the dataset again"):
        run()
    (folder / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset.json is not JSON .*: convert the dataset again"):
        run()


def test_a_case_of_nothing_but_zeros(make_dataset, run):
    make_dataset({"a": ({0: scan(1)}, label(1)), "b": ({1: 0 * scan()}, label(1))})
    with pytest.raises(ValueError, match=r"Case b shows no modality: all voxels of .*b_0001.nii.gz are zero"):
        run()
