import matplotlib.pyplot as plt
import pytest

from nnunet_cmc.trainers.logger import SeriesLogger

PANELS = {"terms": ["term/csc", "term/cac"], "similarity": ["similarity/csc"]}


@pytest.mark.parametrize("epochs", [1, 3])
def test_every_curve_is_seen_from_the_first_epoch_on(tmp_path, monkeypatch, epochs):
    logger = SeriesLogger(PANELS, ["CT", "MR"])
    for epoch in range(epochs):
        for name in logger.my_fantastic_logging:
            logger.log(name, [0.5] if name == "dice_per_class_or_region" else 0.5, epoch)
    monkeypatch.setattr(plt, "close", lambda figure: None)
    logger.plot_progress_png(str(tmp_path))
    lines = [line for axes in plt.gcf().axes for line in axes.lines]
    assert len(lines) == 11
    assert all(line.get_marker() == "." and len(line.get_xdata()) == epochs for line in lines)
    monkeypatch.undo()
    plt.close("all")
    assert (tmp_path / "progress.png").stat().st_size > 10_000
    assert len((tmp_path / "progress.csv").read_text().splitlines()) == 1 + epochs
