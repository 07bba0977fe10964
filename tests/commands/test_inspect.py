"""nnunet_cmc inspect: the tables, and the page with what each case is."""

import argparse
import json
import re
from pathlib import Path

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
    names = ("index.html", "cases", "open_case.py", "open_case.json")
    assert outcome.written == [Path("inspect_Dataset001_Test", name) for name in names]
    a, *_, t = json.loads(to_json(outcome.numbers))["cases"]
    assert a["images"].keys() == a["percentiles_1_99"].keys() == {"CT"}
    assert a["volumes_ml"] == pytest.approx({"liver": 0.4, "spleen": 0.4})
    assert (t["name"], t["part"], t["label"], t["size"], t["spacing_mm"]) == ("t", "test", None, [14, 12, 6], [1, 1, 5])


def test_the_page_shows_each_case(make_dataset, run, tmp_path):
    cases = {f"case_{i:02d}": ({i % 2: scan(1)}, label(1, 2) if i < 3 else None) for i in range(5)}
    make_dataset({**cases, "both": ({0: scan(-1000), 1: scan(1)}, label(1))})
    run("-o", "out")
    page = (tmp_path / "out" / "index.html").read_text()
    names = [*(f"case_{i:02d}" for i in range(5)), "both"]
    assert {folder.name for folder in (tmp_path / "out" / "cases").iterdir()} == set(names)
    data = dict(re.findall(r"""data-name="([^"]*)" data-case='([^']*)'""", page))
    assert set(data) == set(names)
    facets = {name: json.loads(found)["facets"] for name, found in data.items()}
    assert facets["case_01"] == {"part": "training", "modalities": "MR", "label": "labelled"}
    assert facets["case_04"] == {"part": "unlabelled", "modalities": "CT", "label": "not labelled"}
    assert facets["both"] == {"part": "training", "modalities": "CT+MR", "label": "labelled"}
    assert json.loads(data["both"])["numbers"] == [0.02, 0.0]  # ml: 20 voxels of 1 mm3
    assert json.loads(data["case_04"])["numbers"] == [None, None]
    slices = re.findall(r'src="cases/(.*?)/(.*?)"', page)
    assert {case for case, file in slices if file == "reference.svg"} == set(names) - {"case_03", "case_04"}
    assert len({file for case, file in slices if case == "both"}) == 3
    listed = json.loads((tmp_path / "out" / "open_case.json").read_text())["cases"]
    assert listed["case_04"]["labels"] == {}
    assert list(listed["both"]["scans"]) == ["CT", "MR"]
    assert list(listed["case_01"]["scans"]) == ["MR"]  # not the file of zeros


def test_ct_has_windows_where_the_dataset_says_so(make_dataset, run, tmp_path):
    """Though nothing is below -500 HU, as in CT that was clipped; MR of such values is none."""
    make_dataset({"a": ({0: scan(-200, 250)}, label(1)), "b": ({1: scan(-200, 250)}, label(1))})
    run("-o", "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert set(re.findall(r'class="scan( ct)?" data-scan="(\w+)"', page)) == {(" ct", "CT"), ("", "MR")}
    assert ">soft tissue</option>" in page


def test_cases_of_one_name_in_two_parts(make_dataset, write_volume, run, tmp_path):
    folder = make_dataset({"a": ({0: scan(1)}, label(1))})
    write_volume(folder / "imagesTs" / "a_0000.nii.gz", scan(1))
    run("-o", "out")
    assert {folder.name for folder in (tmp_path / "out" / "cases").iterdir()} == {"a, training", "a, test"}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_shows_the_page(make_dataset, run, tmp_path, browser, width, dark):
    make_dataset({"a": ({0: scan(-1000, 1000)}, label(1, 2)), "b": ({1: scan(1)}, label(1)), "u": ({1: scan(1)}, None)})
    run("-o", "out")
    names = "[...document.querySelectorAll('.case')].map(one => one.dataset.name).join('')"
    facts = browser(
        tmp_path / "out" / "index.html",
        f"""
        const choose = (name, value) => {{
          [...form.querySelectorAll("select")].find(one => [...one.options].some(o => o.text === name)).value = value;
          form.dispatchEvent(new Event("input"));
          return {names};
        }};
        const windows = [...form.window.options].map(option => option.text);
        return [windows, choose("labelled", "labelled"), choose("MR", "MR"), choose("labelled", ""), choose("MR", ""),
                choose("ml of spleen", "1"), document.documentElement.scrollWidth <= innerWidth, innerWidth,
                getComputedStyle(document.body).backgroundColor];
        """,
        width=width,
        dark=dark,
    )
    *facts, background = facts
    assert facts == [["soft tissue", "lung", "bone", "brain"], "ab", "b", "bu", "abu", "bau", True, width]
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == dark


def test_datasets_that_cannot_be_looked_at(make_dataset, run):
    with pytest.raises(ValueError, match="There is no dataset 1"):
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
    with pytest.raises(ValueError, match=r"Case b: .*b_0001.nii.gz cannot be read \(.*\): convert the dataset again"):
        run()
    (folder / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset.json is not JSON .*: convert the dataset again"):
        run()


def test_a_case_of_nothing_but_zeros(make_dataset, run):
    make_dataset({"a": ({0: scan(1)}, label(1)), "b": ({1: 0 * scan()}, label(1))})
    with pytest.raises(ValueError, match=r"Case b is empty: all voxels of .*b_0001.nii.gz are zero; replace"):
        run()


def test_cases_that_dataset_json_lists(make_dataset, run, capsys):
    """nnU-Net's key ``dataset``: files that lie elsewhere."""
    folder = make_dataset({"a": ({0: scan(1), 1: scan(1)}, label(1))})
    (folder / "imagesTr").rename(folder / "scans")
    content = json.loads((folder / "dataset.json").read_text())
    images = [f"scans/a_000{channel}.nii.gz" for channel in (0, 1)]
    content["dataset"] = {"a": {"images": images, "label": "labelsTr/a.nii.gz"}}
    (folder / "dataset.json").write_text(json.dumps(content))
    run()
    assert tables(capsys.readouterr().out)[0][2] == ["training", "1", "1", "1", "1", "1"]
