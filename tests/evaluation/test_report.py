"""The report as a file, and as a browser shows it."""

import json
import re
import shutil
import subprocess
from html import unescape

import matplotlib.image
import numpy as np
import pytest

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.evaluation import report
from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.paired_statistics import Comparison
from nnunet_cmc.evaluation.plots import _curves, save_comparison
from nnunet_cmc.evaluation.report import find_scans, save_report, worst_and_best

# What a page looks like from inside: the width it takes, and its pictures as decoded.
MEASURE = """<script>
addEventListener("load", () => {
  const facts = {
    page: document.documentElement.scrollWidth,
    window: innerWidth,
    images: [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width]),
    asked: performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length,
  };
  document.body.dataset.facts = JSON.stringify(facts);
});
</script>"""


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


def test_scans_are_found_without_the_empty_ones(scans, references, dataset_json):
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
    with pytest.raises(ValueError, match=r"Case a: .*a_0000.nii.gz or its reference cannot be read"):
        find_scans(scans, DatasetDescription.from_dict(dataset_json), references)


def test_worst_cases_come_first_and_none_twice(comparison, monkeypatch):
    evaluation = comparison.evaluations["first <b>"]
    dice = {"a": 1.0, "b": 0.8, "c": 0.7, "d": 0.4}
    for case in evaluation.cases:
        case.metrics["liver"]["Dice"] = case.metrics["spleen"]["Dice"] = dice[case.case]
    assert [case.case for case in worst_and_best(evaluation)] == ["d", "c", "b", "a"]
    monkeypatch.setattr(report, "_WORST", 1)
    assert [case.case for case in worst_and_best(evaluation)] == ["d", "b", "a"]
    monkeypatch.setattr(report, "_BEST", 1)
    assert [case.case for case in worst_and_best(evaluation)] == ["d", "a"]


def test_the_page_needs_nothing_else_and_shows_the_numbers(page, comparison):
    text = page.read_text()
    assert not re.search(r"https?://|<link|<script|url\(", text)
    sources = re.findall(r'src="([^"]{0,40})', text)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    names = {"comparison.png", "distributions.png", "cases_1.png", "cases_2.png"}
    assert {file.name for file in (page.parent / "figures").iterdir()} == names
    words = unescape(re.sub(r"<[^>]*>", " ", re.sub("<style>.*?</style>", "", text, flags=re.DOTALL)))
    cell = comparison.cells["first <b>", "CT", "Dice", "liver"]
    assert f"{100 * cell.mean:.1f} ± {100 * cell.std:.1f}" in words
    assert "Worst and best cases: first <b>" in words
    assert "In the reference but not predicted: spleen in 1 case." in words


def test_one_prediction_is_not_compared(tmp_path, comparison, scans, references, dataset_json):
    alone = Comparison({"one": comparison.evaluations["first <b>"]}, comparison.subjects)
    page = save_report(
        tmp_path / "one", alone, find_scans(scans, DatasetDescription.from_dict(dataset_json), references)
    )
    assert {file.name for file in (page.parent / "figures").iterdir()} == {"distributions.png", "cases.png"}
    assert "Predictions compared" not in page.read_text()


@pytest.mark.parametrize(
    ("names", "bars"),
    [
        (("0.1", "0.5"), False),
        (("0.1", "all"), True),
        (("CMC@0.1", "CMC@0.5"), False),
        (("CMC@0.1", "CMC"), True),
        (("CMC@few", "CMC@nan"), True),
    ],
)
def test_predictions_named_by_numbers_become_a_curve(tmp_path, comparison, names, bars):
    evaluations = dict(zip(names, comparison.evaluations.values(), strict=True))
    save_comparison(tmp_path / "x.png", Comparison(evaluations, comparison.subjects))
    picture = matplotlib.image.imread(tmp_path / "x.png")[..., :3]
    blue = np.abs(picture - np.array([0.122, 0.467, 0.706])).max(axis=2) < 0.02
    assert (blue.mean() > 0.02) == bars  # thin lines, solid bars
    assert blue.any()


def test_curves_are_sorted_by_number_and_one_for_each_method():
    assert _curves(["1", "0.1"]) == {"": {0.1: "0.1", 1.0: "1"}}
    assert _curves(["a@1", "b@1", "a@0.5"]) == {"a": {0.5: "a@0.5", 1.0: "a@1"}, "b": {1.0: "b@1"}}


def test_stress_tests_are_shown(tmp_path, comparison, scans, references, dataset_json):
    class Runs:
        def save_figures(self, folder):
            save_comparison(folder / "missing.png", comparison)
            return [folder / "missing.png"]

    page = save_report(
        tmp_path / "out", comparison, find_scans(scans, DatasetDescription.from_dict(dataset_json), references), Runs()
    )
    assert "Missing and misaligned modalities" in page.read_text()
    assert page.read_text().count("data:image/png;base64,") == 5


@pytest.fixture(scope="module")
def browser():
    """``browser(file, profile, *options)`` -> output of a headless Chromium or Chrome that opens the file."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium or Chrome is installed, so nobody looks at the report")

    def open_page(file, profile, *options):
        alone = ("quic", "background-networking", "component-update", "sync", "gpu")
        command = [program, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in alone)]
        done = subprocess.run(
            [*command, f"--user-data-dir={profile}", *options, f"file://{file}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return open_page


@pytest.mark.parametrize("width", [600, 1280])
def test_a_browser_shows_every_figure_within_its_window(page, browser, tmp_path, width):
    measured = page.with_name("measured.html")
    measured.write_text(page.read_text().replace("</body>", MEASURE + "</body>"))
    shown = browser(measured, tmp_path / "profile", "--dump-dom", f"--window-size={width},800")
    facts = json.loads(unescape(re.search(r'data-facts="([^"]*)"', shown)[1]))
    assert facts["page"] <= facts["window"]
    assert facts["asked"] == 0
    assert len(facts["images"]) == 4
    for complete, decoded, drawn in facts["images"]:
        assert complete
        assert decoded > 1000
        assert 0.8 * min(facts["window"], 1200) < drawn <= facts["window"]


def test_a_screenshot_has_the_colours_of_the_figures(page, browser, tmp_path):
    browser(page, tmp_path / "profile", f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1280,3500")
    shot = matplotlib.image.imread(tmp_path / "shot.png")[..., :3]
    assert shot.shape[:2] == (3500, 1280)
    blue = np.abs(shot - np.array([0.122, 0.467, 0.706])).max(axis=2) < 0.02  # the first colour of bars and boxes
    assert blue.sum() > 20_000
    cyan = np.abs(shot - np.array([0.0, 0.9, 1.0])).max(axis=2) < 0.2  # what the differences call missed
    assert cyan.sum() > 1_000
    assert (shot.min(axis=2) > 0.98).mean() > 0.3  # the paper is white
