from math import nan

import matplotlib.pyplot as plt
import pytest
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from nnunet_cmc.trainers.logger import SeriesLogger

PANELS = {"terms": ["term/csc", "term/cac"], "similarity": ["similarity/csc"]}


def test_an_epoch_without_a_dice_leaves_its_moving_average_as_it_is(tmp_path):
    """Of few validation patches none may show a class; nnU-Net's average would be NaN from then on."""
    logger = MetaLogger(str(tmp_path), resume=False)
    logger.local_logger = SeriesLogger(PANELS, ["CT", "MR"])
    for epoch, dice in enumerate([nan, 0.2, nan, 0.4]):
        logger.log("mean_fg_dice", dice, epoch)
    assert logger.get_value("ema_fg_dice", step=None) == pytest.approx([0, 0.02, 0.02, 0.058])


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
