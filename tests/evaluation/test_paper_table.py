"""The table of a paper as Markdown and LaTeX."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.paired_statistics import Cell, Comparison
from nnunet_cmc.evaluation.paper_table import (
    averages,
    best,
    cell_text,
    number,
    save_tables,
    to_latex,
    to_markdown,
    to_screen,
)


@pytest.fixture
def comparison(folders, dataset_json):
    reference, prediction = folders
    evaluations = {
        "our_method": evaluate_folder(reference, prediction, dataset_json),
        "perfect": evaluate_folder(reference, reference, dataset_json),
    }
    return Comparison(evaluations, {case: case for case in "abcd"})


def test_dice_in_percent_and_distances_in_mm():
    assert cell_text("Dice", Cell(0.87654, 0.0432, 5, 0, 0.8, 0.9)) == "87.7 ± 4.3"
    assert cell_text("ASSD", Cell(1.2345, float("nan"), 1, 2, 1, 2)) == "1.23†"
    assert cell_text("ASSD", Cell(*[float("nan")] * 2, 0, 0, *[float("nan")] * 2)) == "-"
    assert number("Dice", -0.05, "+") == "-5.0"
    assert number("ASSD", 0.05, "+") == "+0.05"


def test_classes_that_are_named_as_their_mean(folders, dataset_json, tmp_path):
    dataset_json["labels"] = {"background": 0, "average": 1, "average of all": 2}
    reference, prediction = folders
    evaluated = evaluate_folder(reference, prediction, dataset_json)
    first, second = (evaluated.statistic(name, "Dice", "CT").mean for name in evaluated.classes)
    both = Comparison({"a": evaluated, "b": evaluated}, {case: case for case in "abcd"})
    columns = ["average", "average of all", "average of all of all"]
    expected = dict(zip(columns, (first, second, (first + second) / 2), strict=True))
    assert first > second > 0
    assert {column: both.cells["a", "CT", "Dice", column].mean for column in both.columns} == pytest.approx(expected)
    assert {column: both.tests["b", "CT", "Dice", column].n for column in both.columns} == dict.fromkeys(columns, 2)

    save_tables(both, tmp_path, "comparison")
    found = json.loads((tmp_path / "comparison.json").read_text())["predictions"]["a"]["CT"]["Dice"]
    assert {column: found[column]["mean"] for column in columns} == pytest.approx(expected)
    header, _, row = markdown_rows((tmp_path / "comparison.md").read_text())[:3]
    assert header[1:4] == [f"CT: {column}" for column in columns]
    assert [float(cell.split()[0].strip("*")) for cell in row[1:4]] == pytest.approx(
        [100 * value for value in expected.values()], abs=0.06
    )
    assert " & ".join(columns) in (tmp_path / "comparison.tex").read_text()
    assert averages(both).rows[0][3] == f"{100 * expected['average of all of all']:.1f}"


def test_json_is_json_where_numbers_are_undefined(comparison, tmp_path):
    def no_constant(name):
        raise ValueError(f"{name} is not JSON")

    *_, file = save_tables(comparison, tmp_path, "comparison")
    found = json.loads(file.read_text(), parse_constant=no_constant)
    assert file.name == "comparison.json"
    assert found["predictions"]["perfect"]["MR"]["Dice"]["spleen"]["mean"] is None
    assert found["predictions"]["perfect"]["MR"]["Dice"]["liver"]["mean"] == 1


def markdown_rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_markdown_has_a_row_per_prediction_and_a_column_per_modality_and_class(comparison):
    rows = markdown_rows(to_markdown(comparison))
    groups = ["CT", "MR", "CT+MR"]
    header = ["prediction", *(f"{group}: {name}" for group in groups for name in ("liver", "spleen", "average"))]
    assert rows[0] == rows[4] == header
    dice, assd = rows[2:4], rows[6:8]
    assert [row[0] for row in (*dice, *assd)] == ["our_method", "perfect"] * 2
    assert dice[1][1:] == ["**100.0 ± 0.0**"] * 3 + ["**100.0**", "-", "**100.0**"] + ["**100.0**"] * 3
    cell = comparison.cells["our_method", "CT", "Dice", "liver"]
    assert dice[0][1] == f"{100 * cell.mean:.1f} ± {100 * cell.std:.1f}"
    assert assd[1][1] == "**0.00 ± 0.00**", "the least is the best"
    assert assd[0][1] == cell_text("ASSD", comparison.cells["our_method", "CT", "ASSD", "liver"])
    assert assd[0][2].endswith("†"), "the spleen of d is missed"
    assert "† undefined in cases" in to_markdown(comparison)


def test_says_in_how_many_cases_a_class_is_evaluated(comparison, folders, dataset_json):
    note = "Where neither reference nor prediction has a class, it is not evaluated: MR spleen is in {} of 1 cases."
    assert note.format(0) in to_markdown(comparison)
    assert "% " + note.format(0) in to_latex(comparison)
    reference, _ = folders
    shutil.copy(reference / "a.nii.gz", folders[1] / "b.nii.gz")  # with a spleen that b has not
    invented = evaluate_folder(reference, folders[1], dataset_json)
    both = Comparison(comparison.evaluations | {"invented": invented}, comparison.subjects)
    assert note.format("0 to 1") in to_markdown(both)
    alone = Comparison({"invented": invented}, comparison.subjects)
    assert "it is not evaluated" not in to_markdown(alone)


def test_a_mean_without_the_worst_cases_is_not_the_best(comparison):
    assert comparison.cells["our_method", "CT", "ASSD", "spleen"].undefined == 1
    assert best(comparison, "CT", "ASSD", "spleen") == {"perfect"}
    assert best(comparison, "MR", "ASSD", "spleen") == set(), "neither has one"
    first = comparison.evaluations["our_method"]
    assert best(Comparison({"alone": first}, comparison.subjects), "CT", "Dice", "liver") == set()


def test_latex_is_a_whole_table(comparison):
    text = to_latex(comparison)
    assert text.count(r"\begin{tabular}{l" + "c" * 9 + "}") == text.count(r"\end{tabular}") == 1
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    for line in body:
        columns = sum(int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)) + len(
            [cell for cell in line.split("&") if "multicolumn" not in cell]
        )
        assert columns == 10, line
    assert r"our\_method &" in text
    assert r"\multicolumn{3}{c}{CT+MR}" in text
    assert r"$^\dagger$" in text
    assert "±" not in "".join(body)
    assert [line for line in body if "Dice" in line] == [r"\multicolumn{10}{l}{\textit{Dice [\%]}} \\"]


def test_averages_show_interval_and_test(comparison):
    _, header, rows, _ = averages(comparison)
    assert len(rows) == 3 * 2 * 2
    row = dict(zip(header, rows[1], strict=True))
    cell, test = (part["perfect", "CT", "Dice", "average"] for part in (comparison.cells, comparison.tests))
    assert (row["modality"], row["metric"], row["prediction"], row["mean"]) == ("CT", "Dice [%]", "perfect", "100.0")
    assert row["interval"] == f"{100 * cell.low:.1f} to {100 * cell.high:.1f}"
    assert (row["difference"], row["subjects"]) == (f"{100 * test.difference:+.1f}", "2")
    assert row["p"] == f"{test.p:.3f}"
    alone = Comparison({"a": comparison.evaluations["our_method"]}, comparison.subjects)
    assert averages(alone).header == ["modality", "metric", "prediction", "mean", "interval"]


def test_averages_mark_means_that_leave_out_cases(comparison):
    _, _, rows, notes = averages(comparison)
    means = {tuple(row[:3]): row[3] for row in rows}
    assert means["CT", "ASSD [mm]", "our_method"].endswith("†"), "the spleen of d is missed"
    assert not any("†" in mean for (group, *_), mean in means.items() if group == "MR")
    assert not means["CT", "Dice [%]", "our_method"].endswith("†")
    assert sum("† undefined in cases" in note for note in notes) == 1
    perfect = Comparison({"a": comparison.evaluations["perfect"]}, comparison.subjects)
    assert "†" not in str(averages(perfect))


def test_the_screen_has_averages_and_each_note_once(comparison):
    text = to_screen(comparison)
    assert max(map(len, (line for line in text.splitlines() if line.startswith("|")))) < 120
    assert len(markdown_rows(text)) == 2 + 3 * 2 * 2
    for note in (
        "† undefined in cases",
        "Mean ± standard deviation over cases (CT: 2",
        "Difference to our_method: mean",
    ):
        assert text.count(note) == 1
    assert "our_method: In the reference but not predicted: spleen in 1 case." in text


def test_says_why_there_is_no_interval(comparison):
    _, _, rows, notes = averages(comparison)
    assert {row[4] == "-" for row in rows if row[0] in ("MR", "CT+MR")} == {True}, "each of one subject"
    assert any(note.startswith("No interval (-): only one subject has a class, or so few") for note in notes)
    one = comparison.evaluations["perfect"]
    of_ct = Comparison({"a": replace(one, cases=one.of_group("CT"))}, comparison.subjects)
    assert not any("No interval" in note for note in averages(of_ct).notes)


def test_files(comparison, tmp_path):
    files = save_tables(comparison, tmp_path, "comparison")
    assert [file.name for file in files] == ["comparison.md", "comparison.tex", "comparison.json"]
    alone = Comparison({"a": comparison.evaluations["our_method"]}, comparison.subjects)
    assert [file.name for file in save_tables(alone, tmp_path, "summary")] == ["summary.md", "summary.tex"]
    assert (tmp_path / "summary.md").read_text() == to_markdown(alone)
