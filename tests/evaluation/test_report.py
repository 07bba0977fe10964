"""The report as a file."""

import re
from html import unescape
from urllib.parse import unquote

import matplotlib.image
import numpy as np
import pytest

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.paired_statistics import Comparison
from nnunet_cmc.evaluation.plots import _curves, save_averages, save_distributions
from nnunet_cmc.evaluation.report import find_scans, save_report
from nnunet_cmc.evaluation.results import CaseResult, Evaluation
from nnunet_cmc.evaluation.stress_figures import StressRuns


@pytest.fixture(autouse=True)
def screen_resolution(monkeypatch):
    """Figures for print take four times as long."""
    monkeypatch.setattr("nnunet_cmc.evaluation.plots.DPI", 150)


@pytest.fixture
def scans(tmp_path, write_labels, blocks, dataset_json):
    """A folder of scans: a CT of a and d, an MR of b, both of c, and an empty CT of b."""
    for case, channels in dataset_json["cmc"]["present_channels"].items():
        for channel in {*channels, 0}:
            volume = (channel in channels) * (100.0 * blocks() + 20).astype(np.float32)
            write_labels(tmp_path / "imagesTs" / f"{case}_{channel:04d}.nii.gz", volume)
    return tmp_path / "imagesTs"


@pytest.fixture
def references(folders):
    return {case: folders[0] / f"{case}.nii.gz" for case in "abcd"}


@pytest.fixture
def comparison(folders, dataset_json):
    reference, prediction = folders
    evaluations = {
        "first <b>": evaluate_folder(reference, prediction, dataset_json),
        "the reference": evaluate_folder(reference, reference, dataset_json),
    }
    return Comparison(evaluations, {case: case for case in "abcd"})


@pytest.fixture
def page(tmp_path, comparison, scans, references, dataset_json):
    return save_report(
        tmp_path / "out", comparison, find_scans(scans, DatasetDescription.from_dict(dataset_json), references)
    )


@pytest.mark.parametrize("stated", [True, False])
def test_scans_are_found_without_the_empty_ones(scans, references, dataset_json, stated):
    """Whether dataset.json states the modalities of a case or, as nnU-Net's own, does not."""
    if not stated:
        del dataset_json["cmc"]
    found = find_scans(scans, DatasetDescription.from_dict(dataset_json), references)
    assert {case: list(files) for case, files in found.items()} == {
        "a": ["CT"], "b": ["MR"], "c": ["CT", "MR"], "d": ["CT"]
    }  # fmt: skip
    assert found["b"]["MR"] == scans / "b_0001.nii.gz"


def test_scans_that_are_missing_or_do_not_fit(scans, references, dataset_json, write_volume, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere has no scan of 4 of 4 cases, such as a_0000.nii.gz: .* with -i"):
        find_scans(tmp_path / "nowhere", DatasetDescription.from_dict(dataset_json), references)
    write_volume(scans / "a_0000.nii.gz", np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match=r"Case a: .*a_0000.nii.gz is not on the grid of .*a.nii.gz \(size"):
        find_scans(scans, DatasetDescription.from_dict(dataset_json), references)
    (scans / "a_0000.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Case a: .*a_0000.nii.gz cannot be read"):
        find_scans(scans, DatasetDescription.from_dict(dataset_json), references)


def test_the_page_needs_nothing_but_its_folder_and_shows_the_numbers(page, comparison):
    text = page.read_text()
    assert not re.search(r"https?://|<link|<script src|@import", text)
    sources = [unquote(source) for source in re.findall(r'src="([^"]{0,40})', text)]
    assert sum(source.startswith("data:image/png;base64,") for source in sources) == 2
    assert all((page.parent / source).is_file() for source in sources if not source.startswith("data:"))
    assert {file.name for file in (page.parent / "figures").iterdir()} == {"comparison.png", "distributions.png"}
    assert {folder.name for folder in (page.parent / "cases").iterdir()} == set("abcd")
    words = unescape(re.sub(r"<[^>]*>", " ", re.sub("<(style|script)>.*?</(style|script)>", "", text, flags=re.DOTALL)))
    cell = comparison.cells["first <b>", "CT", "Dice", "liver"]
    assert f"{100 * cell.mean:.1f} ± {100 * cell.std:.1f}" in words
    dice = comparison.evaluations["first <b>"].cases[0].metrics["liver"]["Dice"]
    assert f"liver {100 * dice:.1f} %" in words
    assert "In the reference but not predicted: spleen in 1 case." in words


def test_one_prediction_is_not_compared(tmp_path, comparison, scans, references, dataset_json):
    alone = Comparison({"one": comparison.evaluations["first <b>"]}, comparison.subjects)
    page = save_report(
        tmp_path / "one", alone, find_scans(scans, DatasetDescription.from_dict(dataset_json), references)
    )
    assert {file.name for file in (page.parent / "figures").iterdir()} == {"distributions.png"}
    assert "Predictions compared" not in page.read_text()


def test_no_case_is_outside_of_its_axis(monkeypatch):
    """Modalities share an axis, whose first one may have the lowest or the highest values."""
    cases = [
        CaseResult(name, group, "", "", {"liver": {"Dice": dice, "ASSD": mm, "n_ref": 1, "n_pred": 1}})
        for name, group, dice, mm in (
            ("a", "CT", 0.5, 9.0), ("b", "MR", 0.1, 30.0), ("c", "CT+MR", 0.9, 1.0), ("d", "CT+MR", 0.8, 2.0)
        )
    ]  # fmt: skip
    figures = []
    monkeypatch.setattr("nnunet_cmc.evaluation.plots.save_plot", lambda figure, *_, **__: figures.append(figure))
    save_distributions("x.png", Comparison({"one": Evaluation({"liver": 1}, 2.0, cases, [])}, {c: c for c in "abcd"}))
    for axis in figures[0].axes:
        low, high = axis.get_ylim()
        drawn = np.concatenate([line.get_ydata() for line in axis.lines])
        assert low < drawn.min()
        assert drawn.max() < high, axis.get_title(loc="left")
        assert "ASSD" not in axis.get_title(loc="left") or low == 0


@pytest.mark.parametrize(
    ("names", "bars"),
    [
        (("0.1", "0.5"), False),
        (("0.1", "all"), True),
        (("CMC@0.1", "CMC@0.5"), False),
        (("CMC@0.1", "CMC"), True),
        (("CMC@few", "CMC@nan"), True),
        (("CMC@1", "CMC@1.0"), True),
    ],
)
def test_predictions_named_by_numbers_become_a_curve(tmp_path, comparison, names, bars):
    evaluations = dict(zip(names, comparison.evaluations.values(), strict=True))
    save_averages(tmp_path / "x.png", Comparison(evaluations, comparison.subjects))
    picture = matplotlib.image.imread(tmp_path / "x.png")[..., :3]
    blue = np.abs(picture - np.array([0.122, 0.467, 0.706])).max(axis=2) < 0.02
    assert (blue.mean() > 0.02) == bars  # thin lines, solid bars
    assert blue.any()


def evaluation_of(dice):
    cases = [
        CaseResult(f"case{i}", "CT", "", "", {"liver": {"Dice": value, "ASSD": 1.0, "n_ref": 1, "n_pred": 1}})
        for i, value in enumerate(dice)
    ]
    return Evaluation({"liver": 1}, 2.0, cases, [])


@pytest.mark.parametrize("names", [("all", "again"), ("0.1", "1")])
def test_bars_and_curves_of_subjects_that_have_one_value(tmp_path, names):
    """Their intervals are points."""
    for n in (3, 6, 10):
        one = evaluation_of([0.1, 0.7, 4 / 7][n % 3 :][:1] * n)
        comparison = Comparison(dict.fromkeys(names, one), {case.case: case.case for case in one.cases})
        save_averages(tmp_path / "x.png", comparison)
        assert (tmp_path / "x.png").stat().st_size > 10_000


def test_curves_are_sorted_by_number_and_one_for_each_method():
    assert _curves(["1", "0.1"]) == {"": {0.1: "0.1", 1.0: "1"}}
    assert _curves(["a@1", "b@1", "a@0.5"]) == {"a": {0.5: "a@0.5", 1.0: "a@1"}, "b": {1.0: "b@1"}}


def test_stress_tests_are_shown(tmp_path, comparison, scans, references, dataset_json, save_run):
    stress = StressRuns({name: save_run(tmp_path / name, 0.2) for name in ("ours", "theirs")})
    found = find_scans(scans, DatasetDescription.from_dict(dataset_json), references)
    page = save_report(tmp_path / "out", comparison, found, 1, stress)
    assert "Missing and misaligned modalities" in page.read_text()
    assert {file.name for file in (page.parent / "figures").iterdir()} == {
        "comparison.png", "distributions.png", "missing.png", "misalignment.png"
    }  # fmt: skip
    assert page.read_text().count("data:image/png;base64,") == 4
