"""Activations of one or several models beside the scans of a case."""

from collections.abc import Collection, Mapping
from os import PathLike
from textwrap import fill

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_cmc.data.files import save_figure
from nnunet_cmc.evaluation.explain import FULL
from nnunet_cmc.evaluation.folder_evaluation import mask_of
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import best_plane, class_colors, read_volume, window

_PANEL = 3.0  # inches, the width of a panel
_TITLE = 26  # letters that fit over a panel
_COLORS = "inferno"


def save_activations(
    file: str | PathLike,
    case: str,
    images: Mapping[str, str | PathLike],
    models: Mapping[str, Mapping[str, str | PathLike]],
    classes: Mapping[str, Label],
    asked: Collection[str],
    reference: str | PathLike | None = None,
) -> None:
    """Draw a PNG: the scans of a case, outlines of its reference if there is one, and each model's activation with
    outlines of what it predicted.

    Args:
        images: scan of each modality by its name; activations are drawn over the first.
        models: by title, the files of :func:`nnunet_cmc.evaluation.explain.explain_case`.
        classes: name and label of each foreground class.
        asked: the classes that the activation is of; these alone are outlined.
    """
    outlined = {} if reference is None else {"reference": read_volume(reference)[0]}
    outlined |= {title: read_volume(files["prediction"])[0] for title, files in models.items()}
    scans = {name: read_volume(image) for name, image in images.items()}
    spacing = next(iter(scans.values()))[1]
    plane = best_plane(list(outlined.values()), {name: classes[name] for name in asked}, spacing)
    shown = {name: plane.cut(window(volume)) for name, (volume, _) in scans.items()}
    background = next(iter(shown.values()))
    columns = [*shown, *outlined]
    colors = class_colors(classes)
    classes = {name: label for name, label in classes.items() if name in asked}

    height = _PANEL * background.shape[0] * plane.aspect / background.shape[1]
    figure = Figure(figsize=(_PANEL * len(columns) + 1, height + 0.9), layout="constrained", facecolor="white")
    figure.suptitle(case)
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, column in zip(axes, columns, strict=True):
        axis.set_title(fill(column, _TITLE))
        axis.set_xticks([])
        axis.set_yticks([])
        scan = shown.get(column, background)
        axis.imshow(scan, cmap="gray", vmin=0, vmax=1, aspect=plane.aspect, interpolation="nearest")
        if column in models:
            activation = plane.cut(read_volume(models[column]["activation"])[0]).astype(float)
            axis.imshow(
                activation, cmap=_COLORS, vmin=0, vmax=FULL, alpha=0.8 * np.sqrt(activation / FULL), aspect=plane.aspect
            )
        for name, label in classes.items() if column in outlined else ():
            if (mask := mask_of(plane.cut(outlined[column]), label)).any():
                axis.contour(mask, levels=[0.5], colors=[colors[name]], linewidths=1.2)
    scale = ScalarMappable(Normalize(0, FULL), _COLORS)
    figure.colorbar(scale, ax=list(axes), shrink=0.8, pad=0.01).set_label(
        "% of the case's largest activation", fontsize="small"
    )
    handles = [Line2D([], [], color=colors[name], label=name) for name in classes]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    save_figure(figure, file, dpi=150)
