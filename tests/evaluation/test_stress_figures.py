"""Stress tests of several models in the same figures."""

import json

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from nnunet_cmc.evaluation.plots import save_plot
from nnunet_cmc.evaluation.slices import colors_of
from nnunet_cmc.evaluation.stress_figures import _HOLLOW, StressRuns, _misalignment, _missing
from nnunet_cmc.evaluation.stress_results import read_conditions
from nnunet_cmc.utils.files import write_json

COLORS = [color[:3] for color in colors_of("abc").values()]  # of the first three of a few


def test_a_mean_that_is_undefined(tmp_path, save_run):
    """nnU-Net's NaN, which older versions wrote, and JSON's null: there is no bar, but all others."""
    for spelling in ("null", "NaN"):
        folder = save_run(tmp_path / spelling, 0.1)
        content = json.loads((folder / "stress.json").read_text())
        content["conditions"][1]["mean"]["ASSD"] = None
        (folder / "stress.json").write_text(json.dumps(content).replace("null", spelling))
        runs = StressRuns({"x": folder})
        assert np.isnan(runs.runs["x"]["CT"]["mean"]["ASSD"])
        assert runs.save_figures(folder)[0].is_file()


def painted(picture, colour):
    return int((np.abs(picture - np.array(colour)).max(axis=2) < 0.02).sum())


def test_a_colour_for_each_model(tmp_path, save_run):
    folders = {name: save_run(tmp_path / name, loss) for name, loss in {"good": 0.1, "bad": 0.5}.items()}
    runs = StressRuns(folders)
    assert runs.subsets == ["all", "CT", "MR"]
    assert runs.moved == ["CT", "MR"]
    for file in runs.save_figures(tmp_path):
        picture = matplotlib.image.imread(file)[..., :3]
        assert all(painted(picture, COLORS[i]) > 5000 for i in (0, 1)), file
        assert painted(picture, COLORS[2]) == 0
        assert picture.shape[1] >= 3300  # for print


def test_more_than_ten_models_or_classes_have_colours_of_their_own(tmp_path, save_run):
    for count in (11, 20):
        assert len(set(colors_of([str(i) for i in range(count)]).values())) == count
    folder = save_run(tmp_path / "a", 0.1)
    bars = StressRuns({str(i): folder for i in range(11)})._missing().axes[0].containers
    assert len({one[0].get_facecolor() for one in bars}) == 11


@pytest.mark.parametrize("names", [["CT", "MR"], ["CT", "MR", "PET"], ["T1", "T1C", "T2", "FLAIR"]])
def test_the_names_of_sets_of_modalities_do_not_overlap(tmp_path, names, save_run):
    folder = save_run(tmp_path / "a", 0.1, names=names)
    for entry in (content := json.loads((folder / "stress.json").read_text()))["conditions"][1:]:
        entry["cases"] = 3
    write_json(folder / "stress.json", content)
    for figure in (StressRuns({"x": folder})._missing(), _missing(read_conditions(folder / "stress.json"))):
        FigureCanvasAgg(figure).draw()
        for labels in (axis.get_xticklabels() for axis in figure.axes):
            distance = np.diff([label.get_transform().transform(label.get_position())[0] for label in labels]).min()
            if turn := np.deg2rad(labels[0].get_rotation()):
                height = 1.5 * labels[0].get_fontsize() * figure.dpi / 72
                assert distance * np.sin(turn) > height, "lines at an angle are apart"
            else:
                assert distance > max(label.get_window_extent().width for label in labels)


def test_the_legend_is_not_drawn_over_the_note(tmp_path, save_run):
    folder = save_run(tmp_path / "a", 0.1, undefined=1)
    figure = _missing(read_conditions(folder / "stress.json"))
    save_plot(figure, tmp_path / "a.png")
    (note,) = (text for text in figure.findobj(Text) if text.get_text() == _HOLLOW)
    assert not figure.legends[0].get_window_extent().overlaps(note.get_window_extent())


def test_points_that_leave_out_cases_are_hollow(tmp_path, save_run):
    solid, hollow = (
        StressRuns({"x": save_run(tmp_path / str(n), 0.2, undefined=n)}).save_figures(tmp_path / str(n))[1]
        for n in (0, 1)
    )
    blue = [painted(matplotlib.image.imread(file)[..., :3], COLORS[0]) for file in (solid, hollow)]
    assert blue[1] < 0.95 * blue[0]


def test_sets_of_modalities_have_no_order_and_misalignments_have_ticks_where_they_were_tested(tmp_path, save_run):
    entries = read_conditions(save_run(tmp_path / "a", 0.2) / "stress.json")
    sets, moved = _missing(entries), _misalignment(entries, ["CT", "MR"])
    assert {line.get_linestyle() for axis in sets.axes for line in axis.lines} == {"None"}
    for axis, kind in zip(moved.axes, ["mm", "degrees"] * 2, strict=True):
        assert axis.get_xticks().tolist() == [0, *dict.fromkeys(entry[kind] for entry in entries if entry[kind])]


def test_tests_that_cannot_be_compared(tmp_path, save_run):
    first, fewer = save_run(tmp_path / "a", 0.1), save_run(tmp_path / "b", 0.1, cases=3)
    with pytest.raises(ValueError, match="tests of one and two differ: all has 4 and 3 cases; test both on the same"):
        StressRuns({"one": first, "two": fewer})
    with pytest.raises(ValueError, match=r"There is no .*nowhere/stress.json: name the output folder"):
        StressRuns({"one": tmp_path / "nowhere"})


@pytest.mark.parametrize("key", ["condition", "given", "moved", "mm", "degrees", "cases", "mean", "classes"])
@pytest.mark.parametrize("junk", [None, [], True, {"liver": {}}])
def test_files_that_stress_did_not_write(tmp_path, key, junk, save_run):
    file = save_run(tmp_path / "a", 0.1) / "stress.json"
    content = json.loads(file.read_text())
    content["conditions"][3][key] = junk
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a/stress.json has no conditions as nnunet_cmc stress writes them: name the"):
        StressRuns({"one": tmp_path / "a"})


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"conditions": []}', '{"conditions": {"a": 1}}', "\xff"])
def test_files_that_are_something_else(tmp_path, content):
    (tmp_path / "stress.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"stress.json (is not JSON|has no conditions).*: name the output folder"):
        StressRuns({"one": tmp_path})
