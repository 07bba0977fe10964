"""Activations of one or several models beside the scans of a case."""

from collections.abc import Collection, Mapping
from os import PathLike
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from nnunet_cmc.evaluation.panels import Panel, PanelRow, class_outlines, draw_panels
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import best_plane, colors_of, read_volume, window
from nnunet_cmc.inference.class_activation import FULL
from nnunet_cmc.utils.files import save_figure

_TITLE = 26  # letters that fit over a panel
_COLORS = colormaps["inferno"]


def save_activations(
    file: str | PathLike,
    case: str,
    images: Mapping[str, str | PathLike],
    models: Mapping[str, Mapping[str, str | PathLike]],
    classes: Mapping[str, Label],
    asked: Collection[str],
    reference: str | PathLike | None = None,
) -> None:
    """Draw a PNG: the scans of a case, its reference's outlines, and each model's activation with its prediction's.

    Args:
        images: scan of each modality by its name; activations are drawn over the first.
        models: by title, the files of :func:`nnunet_cmc.inference.class_activation.explain_case`.
        classes: name and label of each foreground class.
        asked: the classes that the activation is of; these alone are outlined.
    """
    label_maps = {} if reference is None else {"reference": read_volume(reference)[0]}
    label_maps |= {title: read_volume(files["prediction"])[0] for title, files in models.items()}
    volumes = {name: read_volume(image) for name, image in images.items()}
    colors = colors_of(classes)
    classes = {name: classes[name] for name in classes if name in asked}
    plane = best_plane(list(label_maps.values()), classes, next(iter(volumes.values()))[1])
    scans = {name: plane.cut(window(volume)) for name, (volume, _) in volumes.items()}
    background = next(iter(scans.values()))

    panels = [Panel(scan) for scan in scans.values()]
    for title, labels in label_maps.items():
        activation = None
        if title in models:
            share = plane.cut(read_volume(models[title]["activation"])[0]) / FULL
            activation = np.concatenate([_COLORS(share)[..., :3], 0.8 * np.sqrt(share)[..., None]], -1)
        panels.append(Panel(background, activation, class_outlines(plane.cut(labels), classes, colors)))
    titles = [in_lines(title) for title in (*scans, *label_maps)]
    handles = [Line2D([], [], color=colors[name], label=name) for name in classes]
    row = PanelRow("", panels, plane.aspect)
    figure, axes = draw_panels([row], titles, handles, margins=(1.0, 0.6), width=3.0, outline_width=1.2)
    figure.suptitle(case)
    scale = figure.colorbar(ScalarMappable(Normalize(0, FULL), _COLORS), ax=list(axes.flat), shrink=0.8, pad=0.01)
    scale.set_label("% of the case's largest activation", fontsize="small")
    save_figure(figure, file, dpi=150)


def in_lines(title: str) -> str:
    """Break a title into lines that fit over a panel, a trainer's name after its underscores."""
    return fill(title.replace("_", "_ "), _TITLE).replace("_ ", "_")
