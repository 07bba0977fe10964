"""The glioma benchmark's records, its comparisons, and the pages that are made of them."""

import re
from dataclasses import replace
from functools import partial

import figures
import pytest
import report
from intervals import paired_difference
from made_up_records import records_of
from PIL import Image
from records import load, save
from systems import DEFAULT, GPU, TABLES, Run, stock
from table import Results, better_stock, by_system


def test_a_rerun_replaces_its_record(tmp_path):
    file, run = tmp_path / "results.json", Run("registered", DEFAULT)
    (old,), (other,) = records_of(run, [50.0], "both"), records_of(Run("registered", DEFAULT, seed=1), [50.0], "both")
    save([old, other], file)
    save([old | {"dice": 70.0}], file)
    assert sorted(record["dice"] for record in load(file)) == [50.0, 70.0]


def test_stock_is_given_its_better_model():
    both, flair, t1post = stock("registered")
    found = [
        *records_of(both, [10.0, 20.0], "both"),
        *records_of(both, [5.0, 5.0], "FLAIR"),
        *records_of(both, [0.0, 1.0], "T1post"),
        *records_of(flair, [30.0, 40.0]),
        *records_of(t1post, [0.0, 0.5]),
        *records_of(Run("registered", DEFAULT), [99.0, 99.0]),
    ]
    systems = by_system(Results(found), TABLES["headline"])
    assert better_stock(systems, "registered", "both").tolist() == [[30.0, 40.0]]
    assert better_stock(systems, "registered", "T1post").tolist() == [[0.0, 1.0]]


def test_systems_are_compared_on_the_seeds_that_all_have_of_an_arrangement():
    ours, (theirs, *_) = Run("registered", DEFAULT), stock("registered")
    elsewhere = Run("unpaired", DEFAULT)
    found = [
        record for run in (ours, theirs) for seed in (0, 2) for record in records_of(replace(run, seed=seed), [1.0])
    ]
    found += [*records_of(replace(ours, seed=1), [9.0]), *records_of(replace(elsewhere, seed=3), [9.0])]
    systems = by_system(Results(found), TABLES["headline"])
    assert {run: its.seeds for run, its in systems.items()} == {ours: [0, 2], theirs: [0, 2], elsewhere: [3]}


def test_the_page_is_made_of_records(tmp_path, monkeypatch):
    """Of every run of every table: nnU-Net has 50, with pseudo-labels 62, ours 60 and a point more for each seed."""
    monkeypatch.setattr(report, "paired_difference", partial(paired_difference, draws=100))
    rows = []
    for run in {run for runs in TABLES.values() for run in runs} | {
        replace(run, profile=GPU) for run in TABLES["headline"]
    }:
        dice = (62.0 if run.recipe else 50.0) if run.stock else 60.0 + run.seed
        for given in run.inputs:
            lost = (given == "T1post") * (20.0 if run.stock else 5.0)
            rows += records_of(run, [dice - lost + 1, dice - lost - 1], given)
    save(rows, tmp_path / "results.json")
    report.write(tmp_path / "results.json")
    text = (tmp_path / "results.md").read_text()
    assert "{{" not in text
    assert "*Not run yet.*" not in text
    assert len(text.splitlines()) <= 250
    told = (
        "`CMCTrainer` minus nnU-Net is +17.0 points (registered, 5 of 5 seeds), +17.0 points (unpaired, 5 of 5 seeds)"
    )
    assert told in text.replace("\n", " ")
    assert "| registered | CMCTrainer | 5 | 62.0 ± 1.6 | 57.0 ± 1.6 | 62.0 ± 1.6 | 60.3 | 1.0 |" in text
    assert (
        "| unpaired | nnU-Net, each alone, pseudo-labels twice | 5 | 62.0 ± 0.0 | 42.0 ± 0.0 |  |  | 2.0 |" in text
    ), "two models"
    (plain,) = re.findall(r"^\| registered \| nnU-Net \|.*$", text.split("## Three times")[0], re.MULTILINE)
    assert plain.startswith("| registered | nnU-Net | 5 | +12.0 [")
    (gain,) = re.findall(r"^\| 3 points or more above.*$", text.split("## Three times")[0], re.MULTILINE)
    assert gain.count("met: +17.00 [") == 3
    assert "met: 5.00 lost, nnU-Net 20.00" in text
    assert (tmp_path / "results.png").is_file()
    compared = (tmp_path / "comparison.md").read_text()
    assert "| unpaired | `UMMLTrainer` | 3 | 61.0 ± 1.0 | 56.0 ± 1.0 | 61.0 ± 1.0 | 59.3 | none (+0.0 [" in compared
    assert "| unpaired | `EFCDTrainer` |" not in compared, "it needs registered scans"


def test_one_seed_leaves_the_targets_open():
    """However far ahead the default is on its subjects."""
    rows = []
    for run in (run for run in TABLES["headline"] if run.seed == 0):
        dice = 50.0 if run.stock else 80.0
        rows += [record for given in run.inputs for record in records_of(run, [dice + 1, dice - 1], given)]
    text = report.targets(report.against(Results(rows), TABLES["headline"]))
    assert text.count("open: ") == 4 * 3
    assert "open: +30.00 [" in text
    assert "met: " not in text
    assert "missed" not in text


def test_a_deficit_is_no_target_met_because_it_may_be_chance():
    """Only the first target asks for an interval."""
    rows = []
    for run in (run for run in TABLES["headline"] if run.seed < 2):
        dice = [50.0, 70.0] if run.recipe else [40.0, 40.0] if run.stock else [60.0, 59.0]
        rows += [record for given in run.inputs for record in records_of(run, dice, given)]
    text = report.targets(report.against(Results(rows), TABLES["headline"]))
    (behind,) = (line for line in text.splitlines() if "with pseudo-labels" in line)
    assert behind.count("**missed**: -0.50 [") == 3


def test_the_time_of_a_row_is_that_of_all_its_models():
    rows = []
    for run in (run for run in TABLES["headline"] if run.arrangement == "registered" and not run.recipe):
        seconds = 60.0 * (run.seed + {"both": 10, "FLAIR": 3, "T1post": 4}[run.channels])
        rows += [one | {"seconds": seconds} for given in run.inputs for one in records_of(run, [50.0], given)]
    text = report.means(by_system(Results(rows), TABLES["headline"]))
    times = {line.split(" | ")[1]: line.split(" | ")[-1] for line in text.splitlines()[2:]}
    assert times == {"CMCTrainer": "12.0 |", "nnU-Net, both": "12.0 |", "nnU-Net, each alone": "11.0 |"}


def drawn_headline(wanted):
    """The axes, and bars and texts of each, of a figure of these runs."""
    rows = [record for run in wanted for given in run.inputs for record in records_of(run, [50.0], given)]
    figure = figures.headline(by_system(Results(rows), TABLES["headline"]))
    return [(axis.patches, [text.get_text() for text in axis.texts]) for axis in figure.axes]


def centres(bars):
    return sorted(round(bar.get_x() + bar.get_width() / 2, 6) for bar in bars)


def test_bars_are_centred_and_a_system_that_was_not_run_is_no_zero():
    runs = [run for run in TABLES["headline"] if run.seed == 0]
    plain = [run for run in runs if not run.recipe]
    for bars, texts in drawn_headline(plain):
        assert centres(bars) == pytest.approx([place + side for place in range(3) for side in (-0.135, 0.135)])
        assert not texts, "nobody misses a system that was run nowhere"
    some = [run for run in runs if not run.recipe or run.arrangement == "registered"]
    (bars, texts), *others = drawn_headline(some)
    assert centres(bars) == pytest.approx([place + side for place in range(3) for side in (-0.27, 0, 0.27)])
    assert not texts
    for bars, texts in others:
        assert centres(bars) == pytest.approx([place + side for place in range(3) for side in (-0.27, 0.27)])
        assert texts == ["not run"] * 3


def test_each_nnunet_is_compared_on_all_seeds_that_it_shares_with_ours():
    """However few the other one has."""
    rows = []
    for run in TABLES["headline"]:
        if run.arrangement == "registered" and run.seed < (2 if run.recipe else 4):
            dice = (60.0 if run.recipe else 50.0) if run.stock else 70.0 + run.seed
            rows += [record for given in run.inputs for record in records_of(run, [dice + 1, dice - 1], given)]
    rivals = report.against(Results(rows), TABLES["headline"])
    found = {recipe: report.differences(rivals, "registered", recipe)["mean"] for recipe in report.AGAINST}
    assert [(each.mean, each.seeds) for each in found.values()] == [(21.5, 4), (10.5, 2)]


def test_a_page_without_records_says_so(tmp_path):
    report.write(tmp_path / "results.json")
    text = (tmp_path / "results.md").read_text()
    assert "{{" not in text
    assert "*Not run yet.*" in text
    assert "## 8 labelled subjects" not in text
    assert "Not run yet: *8 labelled subjects*, *Three times as long: 900 iterations*, *On a GPU" in text
    assert "Not run yet: *Measured*." in (tmp_path / "comparison.md").read_text()
    assert not (tmp_path / "results.png").exists()


@pytest.mark.parametrize("name", report.PAGES)
def test_the_pages_have_the_records(name):
    page = report.records.FILE.with_name(f"{name}.md").read_text(encoding="utf-8")
    assert page == report.pages(report.records.FILE)[name], "run benchmarks/evidence/report.py"


def test_the_picture_of_the_results_is_of_the_present_records():
    """``report.py`` writes into it what it was drawn from."""
    with Image.open(report.records.FILE.with_name("results.png")) as picture:
        drawn_from = picture.text["Source"]
    systems = report.by_system(Results(report.records.load()), TABLES["headline"])
    assert drawn_from == report.digest(systems), "run benchmarks/evidence/report.py"
