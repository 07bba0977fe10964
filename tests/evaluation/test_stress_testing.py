"""A stress test of a predictor that reads MR where there is one and CT otherwise."""

import csv
import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.image
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.evaluation import stress_testing
from nnunet_cmc.evaluation.metrics import compute_metrics
from nnunet_cmc.evaluation.results import CaseResult, Evaluation
from nnunet_cmc.evaluation.shown_channels import Condition, input_files
from nnunet_cmc.evaluation.stress_figures import (
    _SAME_CASES,
    StressRuns,
    _misalignment,
    _missing,
    save_stress_figures,
)
from nnunet_cmc.evaluation.stress_results import save_stress, stress_table, summarize
from nnunet_cmc.evaluation.stress_testing import conditions, find_multimodal_cases, stress_test
from nnunet_cmc.utils.files import write_json

RADIUS = 20.0  # mm
DESCRIPTION = DatasetDescription.from_dict(
    {
        "channel_names": {"0": "CT", "1": "MR"},
        "labels": {"background": 0, "ball": 1},
        "file_ending": ".nii.gz",
        "cmc": {"version": 1, "present_channels": {"a": [0, 1], "b": [0, 1], "single": [1]}},
    }
)


class Stub:
    """Takes the bright part of the MR, or of the CT if the MR is zero, for the ball; remembers what it was given."""

    def __init__(self):
        self.given = {}

    def __call__(self, inputs, outputs):
        print("what a predictor prints")
        for files, output in zip(inputs, outputs, strict=True):
            images = [sitk.ReadImage(file) for file in files]
            volumes = [sitk.GetArrayFromImage(image) for image in images]
            folder = Path(output).parent.parent  # of a hidden one, until the case is done
            self.given[str(folder / Path(output).name)] = [bool(volume.any()) for volume in volumes]
            used = 1 if volumes[1].any() else 0
            sitk.WriteImage(images[used] > 50.0, output + ".nii.gz")


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    """Folders of scans and of references."""
    images, references = (tmp_path_factory.mktemp("raw") / name for name in ("imagesTs", "labelsTs"))
    z, y, x = 2 * np.indices((40, 40, 40)) - 39.0
    ball = sitk.GetImageFromArray((z**2 + y**2 + x**2 < RADIUS**2).astype(np.uint8))
    ball.SetSpacing((2.0, 2.0, 2.0))
    scan = sitk.Cast(ball, sitk.sitkFloat32) * 100 + 1
    for folder in (images, references):
        folder.mkdir()
    for case, channels in {"a": (0, 1), "b": (0, 1), "single": (1,)}.items():
        for channel in channels:
            sitk.WriteImage(scan, str(images / f"{case}_{channel:04d}.nii.gz"))
        sitk.WriteImage(ball, str(references / f"{case}.nii.gz"))
    return images, references


@pytest.fixture
def folders(balls, tmp_path):
    """A copy to change."""
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in balls)


@pytest.fixture(scope="module")
def tested(balls, tmp_path_factory):
    """(evaluations by condition, stub, output folder)"""
    stub, output = Stub(), tmp_path_factory.mktemp("stress") / "out"
    return stress_test(stub, find_multimodal_cases(*balls, DESCRIPTION), balls[1], DESCRIPTION, output), stub, output


def test_cases_are_predicted_a_few_at_a_time(balls, tmp_path, monkeypatch, capsys):
    """So that the bar moves, and little is lost where the test is interrupted."""
    monkeypatch.setattr(stress_testing, "PER_PROCESS", 1)
    cases = find_multimodal_cases(*balls, DESCRIPTION)
    many = {f"{case}{i}": files for case, files in cases.items() for i in range(2)}
    at_once = []

    def predict(inputs, outputs):
        at_once.append(len(inputs))
        for output in outputs:
            Path(output + ".nii.gz").touch()

    monkeypatch.setattr(stress_testing, "evaluate_folder", lambda *_, **__: None)
    monkeypatch.setattr(stress_testing, "input_files", lambda *_: [])
    stress_test(predict, many, balls[1], DESCRIPTION, tmp_path, processes=3)
    assert at_once == [3, 1] * 15


def test_every_subset_and_every_misalignment():
    names = [condition.name for condition in conditions(["CT", "MR"])]
    moves = [f"{m} {much:g} {unit}" for m in ("CT", "MR") for unit in ("mm", "degrees") for much in (5, 10, 20)]
    assert names == ["all", "CT", "MR", *moves]
    assert [c.name for c in conditions("abc")][:7] == ["all", "a+b", "a+c", "b+c", "a", "b", "c"]


def test_what_is_hidden_is_zero_and_what_is_moved_costs_what_geometry_says(tested):
    evaluations, stub, output = tested
    given = {file.removeprefix(f"{output}/predictions/"): shown for file, shown in stub.given.items()}
    assert given["CT/a"] == [True, False]
    assert given["MR/a"] == [False, True]
    assert given["all/b"] == given["CT_10_mm/b"] == [True, True]
    by_name = {condition.name: evaluation for condition, evaluation in evaluations.items()}
    assert all([case.case for case in evaluation.cases] == ["a", "b"] for evaluation in by_name.values())
    for name, evaluation in by_name.items():
        if not name.startswith("MR "):
            assert evaluation.mean("Dice").mean == 1, name
    for distance in (5, 10, 20):
        lens = 1 - 3 * distance / (4 * RADIUS) + distance**3 / (16 * RADIUS**3)  # of two equal balls' volumes
        assert by_name[f"MR {distance} mm"].mean("Dice").mean == pytest.approx(lens, abs=0.01)
        assert by_name[f"MR {distance} degrees"].mean("Dice").mean > 0.97  # a ball does not care


def test_the_same_direction_at_every_distance_and_another_for_every_case(tested):
    _, _, output = tested

    def shift(condition, case):
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "predictions" / condition / f"{case}.nii.gz")))
        return np.argwhere(found).mean(0) - 19.5

    near, far, other = shift("MR_5_mm", "a"), shift("MR_20_mm", "a"), shift("MR_20_mm", "b")
    np.testing.assert_allclose(far, 4 * near, atol=1)  # voxels
    assert np.linalg.norm(far) == pytest.approx(10, abs=0.3)
    assert np.linalg.norm(far - other) > 3


def test_interrupted_work_resumes_and_the_screen_stays_clean(tested, balls, capsys):
    first, _, output = tested
    (output / "predictions" / "MR_5_mm" / "b.nii.gz").unlink()
    stub = Stub()
    again = stress_test(stub, find_multimodal_cases(*balls, DESCRIPTION), balls[1], DESCRIPTION, output)
    assert list(stub.given) == [str(output / "predictions" / "MR_5_mm" / "b")]
    assert again == first
    assert capsys.readouterr().out == ""
    assert "what a predictor prints" in (output / "log.txt").read_text()
    assert not list(output.rglob(".*")), "no folder of unfinished files is left"


def test_files_hold_the_numbers(tested):
    evaluations, _, output = tested
    save_stress(evaluations, ["CT", "MR"], output)
    with open(output / "stress.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["condition"] == "MR 20 mm"]
    described = [(row["given"], row["moved"], row["mm"], row["degrees"]) for row in rows]
    assert described == [("all", "MR", "20.0", "0.0")] * 2
    (evaluation,) = (one for condition, one in evaluations.items() if condition.name == "MR 20 mm")
    assert [float(row["Dice"]) for row in rows] == [case.metrics["ball"]["Dice"] for case in evaluation.cases]
    entries = {entry["condition"]: entry for entry in json.loads((output / "stress.json").read_text())["conditions"]}
    assert len(entries) == len(evaluations)
    assert entries["CT"]["given"] == "CT"
    assert entries["MR 20 mm"]["mean"]["ASSD"] == evaluation.mean("ASSD").mean
    assert entries["MR 20 mm"]["classes"]["ball"]["Dice"]["n"] == 2


def test_one_table_of_all_conditions(tested):
    evaluations, _, _ = tested
    table = stress_table(evaluations, ["CT", "MR"])
    dice = table[(table["condition"] == "MR 20 mm") & (table["metric"] == "Dice")]
    (evaluation,) = (one for condition, one in evaluations.items() if condition.name == "MR 20 mm")
    assert dice["value"].tolist() == [case.metrics["ball"]["Dice"] for case in evaluation.cases]
    assert dice[["given", "moved", "mm", "degrees"]].drop_duplicates().to_numpy().tolist() == [["all", "MR", 20, 0]]
    assert list(table["condition"].unique()) == [condition.name for condition in evaluations]
    assert len(table) == sum(len(evaluation.table) for evaluation in evaluations.values())


@pytest.mark.parametrize("names", [["all", "MR"], ["CT", "CT"], ["T 1", "T_1"], ["CT", "MR", "CT+MR"]])
def test_modalities_whose_conditions_would_have_one_name(names):
    with pytest.raises(ValueError, match=r"two conditions of the stress test would both be .*: rename one in the"):
        conditions(names)


def test_json_is_json_where_numbers_are_undefined(tmp_path):
    def no_constant(name):
        raise ValueError(f"{name} is not JSON")

    missed = CaseResult("a", "CT+MR", "r", "p", {"ball": compute_metrics(np.ones(1, bool), np.zeros(1, bool), [1.0])})
    save_stress({conditions(["CT", "MR"])[0]: Evaluation({"ball": 1}, 2.0, [missed], [])}, ["CT", "MR"], tmp_path)
    (entry,) = json.loads((tmp_path / "stress.json").read_text(), parse_constant=no_constant)["conditions"]
    assert (entry["mean"]["Dice"], entry["mean"]["ASSD"]) == (0, None)
    assert np.isnan(StressRuns({"x": tmp_path}).runs["x"]["all"]["mean"]["ASSD"])


def test_figure_of_a_class_that_is_named_as_the_mean():
    mask = np.ones(1, bool)
    case = CaseResult("a", "CT+MR", "r", "p", dict.fromkeys(("average", "ball"), compute_metrics(mask, mask, [1.0])))
    evaluated = Evaluation({"average": 1, "ball": 2}, 2.0, [case], [])
    figure = _missing(summarize(dict.fromkeys(conditions(["CT", "MR"])[:3], evaluated), ["CT", "MR"]))
    assert figure.axes[0].get_legend_handles_labels()[1] == ["average", "ball", "average of all"]


def test_figures_show_curves_of_both_modalities(tested):
    evaluations, _, output = tested
    missing, misaligned = save_stress_figures(summarize(evaluations, ["CT", "MR"]), ["CT", "MR"], output)
    assert missing.name == "missing.png"
    picture = matplotlib.image.imread(misaligned)[..., :3]
    for colour in ((0.122, 0.467, 0.706), (1.0, 0.498, 0.055)):
        assert (np.abs(picture - np.array(colour)).max(axis=2) < 0.02).sum() > 2000


def test_only_cases_of_several_modalities_count(folders, tmp_path):
    images, references = folders
    assert {case: list(files) for case, files in find_multimodal_cases(images, references, DESCRIPTION).items()} == {
        "a": [0, 1], "b": [0, 1]
    }  # fmt: skip
    silent = replace(DESCRIPTION, present_channels={})
    sitk.WriteImage(sitk.ReadImage(str(images / "b_0001.nii.gz")) * 0, str(images / "b_0001.nii.gz"))
    assert list(find_multimodal_cases(images, references, silent)) == ["a"]
    (references / "a.nii.gz").unlink()
    with pytest.raises(ValueError, match="labelsTs lacks the references of 1 of 1 cases: a; add them"):
        find_multimodal_cases(images, references, silent)
    (images / "a_0000.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"imagesTs has no case with several modalities \(3 case\(s\) in all\)"):
        find_multimodal_cases(images, references, silent)
    with pytest.raises(ValueError, match=r"There is no folder .*nowhere: give the folder"):
        find_multimodal_cases(tmp_path / "nowhere", references, silent)
    (images / "b_0001.nii.gz").rename(images / "b_0001.nii")
    with pytest.raises(ValueError, match=r"b_0001\.nii looks like a scan, but is no file that ends in \.nii\.gz"):
        find_multimodal_cases(images, references, silent)


def test_a_damaged_scan_is_not_an_absent_modality(folders):
    """ITK reads missing voxels and NaN as zeros."""
    images, references = folders
    file = images / "b_0001.nii.gz"
    whole = sitk.ReadImage(str(file), sitk.sitkFloat32)
    sitk.WriteImage(whole + float("nan"), str(file))
    silent = replace(DESCRIPTION, present_channels={})
    with pytest.raises(ValueError, match=r"Case b: .*b_0001\.nii\.gz has \d+ voxel\(s\) that are NaN or infinite"):
        find_multimodal_cases(images, references, silent)
    file.write_bytes(gzip.compress(nifti_of(whole)[:400]))
    cases = find_multimodal_cases(images, references, DESCRIPTION)
    for condition in (Condition("moved", None, 1, 1.0, 1.0), Condition("other alone", (0,))):
        with pytest.raises(ValueError, match=r"Case b: .*b_0001\.nii\.gz cannot be read"):
            input_files(condition, "b", {1: cases["b"][1], 0: cases["b"][0]}, 2, ".nii.gz", images.parent)


def nifti_of(image):
    with TemporaryDirectory() as folder:
        sitk.WriteImage(image, f"{folder}/scan.nii")
        return Path(folder, "scan.nii").read_bytes()


@pytest.fixture
def easy_and_hard():
    """Entries of a test of an easy case with three modalities, and a hard one with two; neither suffers at all."""
    mask = np.ones(8, bool)
    easy, hard = ({"ball": compute_metrics(mask, found, [1.0])} for found in (mask, mask & (np.arange(8) < 2)))
    channels = {"easy": {0, 1, 2}, "hard": {0, 1}}
    evaluations = {}
    for condition in conditions(["CT", "MR", "PET"]):
        cases = [
            CaseResult(case, "", "r", "p", metrics)
            for case, metrics in {"easy": easy, "hard": hard}.items()
            if condition.applies_to(sorted(channels[case]))
        ]
        evaluations[condition] = Evaluation({"ball": 1}, 2.0, cases, [])
    return {entry["condition"]: entry for entry in summarize(evaluations, ["CT", "MR", "PET"])}


def test_what_moving_a_modality_costs_is_told_of_the_same_cases(easy_and_hard):
    entries = easy_and_hard
    assert [entries[name]["cases"] for name in ("all", "CT+MR", "CT", "CT 5 mm", "PET 5 mm")] == [2, 1, 2, 2, 1]
    for name in ("CT 5 mm", "MR 20 degrees", "PET 5 mm"):
        entry = entries[name]
        assert entry["unmoved"]["mean"]["Dice"] == entry["without"]["mean"]["Dice"] == entry["mean"]["Dice"], name
        assert entry["unmoved"]["cases"] == entry["without"]["cases"] == entry["cases"]
    axis = _misalignment([*entries.values()], ["CT", "MR", "PET"]).axes[0]
    assert all(np.ptp(line.get_ydata()) < 1e-9 for line in axis.lines if len(line.get_ydata()) > 1)


def test_what_leaving_out_a_modality_costs_is_told_of_the_same_cases(easy_and_hard, tmp_path):
    subsets = [entry for entry in easy_and_hard.values() if not entry["moved"]]
    assert "complete" not in subsets[0]
    for entry in subsets[1:]:
        assert entry["complete"]["cases"] == entry["cases"]
        assert entry["complete"]["mean"]["Dice"] == entry["mean"]["Dice"], entry["condition"]
    assert subsets[1]["mean"]["Dice"] > subsets[0]["mean"]["Dice"], "the easy case alone"

    axis = _missing(subsets).axes[0]
    curve, same_cases = (line for line in axis.lines if line.get_label() in ("ball", _SAME_CASES))
    assert same_cases.get_ydata().tolist() == curve.get_ydata().tolist()
    write_json(tmp_path / "stress.json", {"conditions": [*easy_and_hard.values()]})
    axis = StressRuns({"x": tmp_path})._missing().axes[0]
    (lines,) = axis.collections
    heights = [bar.get_height() for bar in axis.patches]
    assert [segment[0][1] for segment in lines.get_segments()] == heights
    everyone = [{**entry, "cases": 2} for entry in subsets]
    assert _SAME_CASES not in _missing(everyone).axes[0].get_legend_handles_labels()[1]


def test_a_set_of_modalities_that_fewer_cases_have_says_how_many(easy_and_hard):
    ticks = [tick.get_text() for tick in _missing([*easy_and_hard.values()]).axes[0].get_xticklabels()]
    assert ticks[:2] == ["all", "CT+MR (1 of 2 cases)"]
    assert "CT" in ticks
