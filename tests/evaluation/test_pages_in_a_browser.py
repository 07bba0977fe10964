"""The cases of the report in Chromium: what fits, what the choices do, and whether greys and colours are right."""

import os
import re
import shlex
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.evaluation.case_pictures import COUNT
from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.paired_statistics import Comparison
from nnunet_cmc.evaluation.report import find_scans, save_report

CHANNELS = {"a": [0], "b": [1], "c #1's": [0, 1]}
SHIFTS = {"a": 2, "b": 4, "c #1's": 0}  # of the predicted liver, in pixels


@pytest.fixture(scope="module")
def page(tmp_path_factory, write_labels):
    """The report of two predictions of three cases: 40 HU in air, a liver, and a spleen that shares no slice with it.

    The first prediction has the liver moved, and in b no spleen; the second is the reference.
    """
    folder = tmp_path_factory.mktemp("page")
    for case, channels in CHANNELS.items():
        labels = np.zeros((20, 24, 32), np.uint8)
        labels[11:19, 4:20, 4:20] = 1
        labels[1:4, 8:16, 20:28] = 2
        moved = np.roll(labels * (labels == 1), SHIFTS[case], axis=2) + labels * (labels == 2) * (case != "b")
        write_labels(folder / "labelsTs" / f"{case}.nii.gz", labels)
        write_labels(folder / "moved" / f"{case}.nii.gz", moved)
        for channel in channels:
            scan = np.where(labels > 0, 40.0, -1000.0) if channel == 0 else 100.0 * labels
            write_labels(folder / "imagesTs" / f"{case}_{channel:04d}.nii.gz", scan.astype(np.float32))
    description = DatasetDescription.from_dict(
        {
            "channel_names": {"0": "CT", "1": "MR"},
            "labels": {"background": 0, "liver": 1, "spleen": 2},
            "file_ending": ".nii.gz",
            "cmc": {"version": 1, "present_channels": CHANNELS},
        }
    )
    references = {case: folder / "labelsTs" / f"{case}.nii.gz" for case in CHANNELS}
    evaluations = {
        name: evaluate_folder(folder / "labelsTs", folder / part, description, progress=False)
        for name, part in {"<moved>": "moved", "the reference": "labelsTs"}.items()
    }
    comparison = Comparison(evaluations, {case: case for case in CHANNELS})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnunet_cmc.evaluation.plots.DPI", 100)
        return save_report(folder / "out", comparison, find_scans(folder / "imagesTs", description, references))


MEASURE = """
for (const image of document.images) image.loading = "eager";
for (const one of document.querySelectorAll(".case")) one.style.contentVisibility = "visible";
const ended = image => image.complete || new Promise(done => image.onload = image.onerror = done);
await Promise.all([...document.images].map(ended));
const visible = row => row.querySelectorAll(".slice:not([hidden])");
const size = one => one.getBoundingClientRect();
return {
  page: document.documentElement.scrollWidth,
  window: innerWidth,
  background: getComputedStyle(document.body).backgroundColor,
  figures: [...document.querySelectorAll(".figure")].map(image => size(image).width),
  decoded: [...document.images].map(image => image.naturalWidth),
  columns: getComputedStyle(document.querySelector(".slices")).gridTemplateColumns.split(" ").length,
  slices: [...document.querySelectorAll(".slices")].map(row => [
    row.children.length, visible(row).length, size(visible(row)[0]).width]),
  outside: [...document.querySelectorAll(".choices *, .case *")].filter(one => size(one).right > innerWidth + 1).length,
  asked: performance.getEntriesByType("resource").map(one => one.name).filter(name => !/^(data|file):/.test(name)),
};
"""


@pytest.mark.parametrize(("width", "dark"), [(500, False), (500, True), (1280, True), (1900, False), (2700, True)])
def test_everything_is_within_the_window(page, browser, width, dark):
    facts = browser(page, MEASURE, width=width, dark=dark)
    assert facts["page"] <= facts["window"] == width
    assert facts["outside"] == 0
    assert facts["asked"] == []
    assert (sum(map(int, re.findall(r"\d+", facts["background"])[:3])) < 200) == dark
    assert len(facts["figures"]) == 2
    assert all(0.8 * min(width, 1200) < drawn <= width for drawn in facts["figures"])
    assert min(facts["decoded"]) > 0
    assert len(facts["slices"]) == 9  # of three cases the reference and two predictions
    assert facts["columns"] == {500: 2, 1280: 6, 1900: 9, 2700: 13}[width]
    for there, shown, drawn in facts["slices"]:
        assert (there, shown) == (COUNT, min(facts["columns"], COUNT))
        assert 180 < drawn < 195 * (1 + 1 / facts["columns"]), "not stretched, where the window has room for more"


CHOOSE = """
const names = () => [...document.querySelectorAll(".case")].map(one => one.dataset.name[0]).join("");
const options = name => [...form.querySelector(`[name=${name}]`).options].map(option => option.text);
const choose = values => {
  for (const [name, value] of Object.entries(values)) form.querySelector(`[name=${name}]`).value = value;
  form.dispatchEvent(new Event("input"));
  return names();
};
const descending = () => { form.descending.checked = true; return choose({}); };
return {
  first: names(), options: options("key"), modalities: options("facet"), named: choose({ key: "" }),
  ct: choose({ facet: "CT" }), count: form.querySelector("output").value,
  facet: choose({ facet: "", key: "modalities" }), ranges: [...form.querySelectorAll(".range")].map(one => one.hidden),
  liver: choose({ key: "1" }), below: choose({ most: "90" }), between: choose({ least: "80" }),
  spleen: choose({ least: "", most: "", key: "2" }), descending: descending(),
};
"""


def test_cases_are_sorted_and_filtered(page, browser):
    facts = browser(page, CHOOSE)
    names = ("average", "liver", "spleen")
    assert facts.pop("options") == [
        "name", "modalities", *(f"Dice [%] {key}, {of}" for of in ("<moved>", "the reference") for key in names)
    ]  # fmt: skip
    assert facts.pop("modalities") == ["all", "CT", "CT+MR", "MR"]
    # Dice of the liver 87.5, 75 and 100 %, of the spleen 100 %, 0 and 100 %
    assert facts == {
        "first": "bac", "named": "abc", "ct": "a", "count": "1 of 3 cases", "facet": "acb", "ranges": [True, True],
        "liver": "bac", "below": "ba",
        "between": "a", "spleen": "bac", "descending": "acb",
    }  # fmt: skip


ENLARGE = """
const facts = [];
const note = () => facts.push([
  large.open, large.querySelector("span").textContent, large.querySelector(".slice").getBoundingClientRect().height]);
document.querySelector("[data-name=a] .slice").click();
note();
for (const key of ["ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowDown"]) {
  large.dispatchEvent(new KeyboardEvent("keydown", { key }));
  note();
}
large.querySelector("[data-step='1']").click();
note();
return [innerHeight, facts];
"""


def test_a_slice_opens_large_and_keys_lead_on(page, browser):
    window, facts = browser(page, ENLARGE)
    opened, titles, heights = zip(*facts, strict=True)
    assert all(opened)
    assert min(heights) == pytest.approx(0.82 * window, rel=0.02)
    rows, slices = zip(
        *(re.fullmatch("a, (.*), axial slice (.*) of 20", title).groups() for title in titles), strict=True
    )
    assert rows == (*["reference"] * 4, *["<moved>"] * 2)
    first, second = slices[:2]
    assert slices == (first, second, first, first, first, second)
    assert int(first) > int(second)  # from the head down


LAYERS = """
const shown = () => {
  form.dispatchEvent(new Event("input"));
  const images = document.querySelectorAll("[data-name^=c] .slices:last-child .slice:first-child img");
  return [...images].filter(one => one.checkVisibility()).map(one => one.dataset.scan ?? one.className);
};
const facts = [shown()];
form.scan.value = "MR";
facts.push(shown());
form.show.value = "errors";
facts.push(shown());
form.labels.checked = false;
facts.push(shown());
return facts;
"""


def test_layers_and_scans_are_chosen(page, browser):
    classes, wrong = ["prediction", "outline"], ["outline", "errors"]
    assert browser(page, LAYERS) == [["CT", *classes], ["MR", *classes], ["MR", *wrong], ["MR"]]


def shot_of(page, browser, tmp_path, script, row=0, **options):
    """Screenshot with a slice of case a enlarged, that of the largest liver."""
    show = f"form.dispatchEvent(new Event('input')); enlarge(document.querySelectorAll('[data-name=a] .slices')[{row}]"
    browser(page, f"{script}; {show}.querySelector('[data-rank=\"0\"]'));", screenshot=tmp_path / "shot.png", **options)
    return matplotlib.image.imread(tmp_path / "shot.png")[..., :3]


def share(shot, colour, tolerance=0.03):
    return (np.abs(shot - np.array(colour)).max(axis=2) < tolerance).mean()


@pytest.mark.parametrize(("window", "grey"), [("soft-tissue", 0.5), ("lung", 1390 / 1500), ("bone", 0.3)])
def test_a_window_of_ct_shows_its_hounsfield_values(page, browser, tmp_path, window, grey):
    script = f"form.window.value = '{window}'; form.labels.checked = false"
    shot = shot_of(page, browser, tmp_path, script, dark=True)
    drawn = 0.5 * 0.75  # of the window; a third of it is liver
    assert share(shot, [grey] * 3) == pytest.approx(drawn / 3, rel=0.35)


def test_errors_are_coloured(page, browser, tmp_path):
    missed, extra = (0.0, 0.9, 1.0), (1.0, 0.93, 0.0)
    before = shot_of(page, browser, tmp_path, "", row=1)
    after = shot_of(page, browser, tmp_path, "form.show.value = 'errors'", row=1)
    assert share(before, missed) < 0.001 > share(before, extra)
    assert share(after, missed) == pytest.approx(share(after, extra), rel=0.1)
    assert share(after, missed) > 0.01


def test_the_link_opens_the_viewer(page, browser, tmp_path):
    """Of the page as open_case.py serves it; a program in the viewer's place notes its arguments."""
    (viewer := tmp_path / "itksnap").write_text('#!/bin/sh\necho "$@" > "$0.txt"\n')
    viewer.chmod(0o755)
    command = [sys.executable, str(page.with_name("open_case.py")), "--viewer", str(viewer)]
    click = "document.querySelector('[data-name^=c] .open').click();"
    wait = "for (let i = 0; i < 20; i++) await new Promise(done => setTimeout(done, 50));"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "BROWSER": "true"}) as server:
        try:
            address = server.stdout.readline().split()[0].rpartition("/")[0]
            assert browser(page, f"{click} {wait} return command.open;", address=address) is False
        finally:
            server.terminate()
    files = r"-g .*/c #1's_0000.nii.gz -o .*/c #1's_0001.nii.gz -s .*labelsTs/c #1's.nii.gz .*moved/c #1's.nii.gz .*"
    assert re.fullmatch(files, (tmp_path / "itksnap.txt").read_text().strip())
    # and where the page is a file, it says what to type
    text = browser(page, f"{click} return document.getElementById('command').innerText;")
    typed = next(line for line in text.splitlines() if line.startswith("python"))
    assert shlex.split(typed) == ["python", str(page.with_name("open_case.py")), "c #1's"]
