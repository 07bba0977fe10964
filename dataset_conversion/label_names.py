"""Names and values of classes, in label files and as nnU-Net numbers them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

Values = Mapping[str, int | Sequence[int]]  # several become one class
Classes = Values | Mapping[str, Values]

# index, red, green, blue, opacity, visible, mesh visible, "name"
_ITKSNAP = re.compile(r'\s*(\d+)(?:\s+[\d.]+){6}\s+"(.*)"\s*')


def read_classes(file: str | Path) -> dict[str, int]:
    """Read the value of each class from JSON (name to value, or value to name, perhaps under "labels") or ITK-SNAP."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file in UTF-8: give JSON, or labels of ITK-SNAP.") from error
    if Path(file).suffix.lower() != ".json":
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        matches = [_ITKSNAP.fullmatch(line) for line in lines]
        if not matches or not all(matches):
            raise ValueError(f'{file} is not a label file of ITK-SNAP, whose lines read: 1 255 0 0 1 1 1 "liver".')
        return _by_name(((match[2], int(match[1])) for match in matches if match and match[1] != "0"), file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}).") from error
    classes = content.get("labels", content) if isinstance(content, dict) else content
    if isinstance(classes, dict) and all(key.isdecimal() and isinstance(classes[key], str) for key in classes):
        classes = _by_name(((name, int(value)) for value, name in classes.items()), file)
    if not isinstance(classes, dict) or not all(name and type(value) is int for name, value in classes.items()):
        raise ValueError(f"{file} must map the name of each class to its value, but is {classes}.")
    return classes


def _by_name(named: Iterable[tuple[str, int]], file: str | Path) -> dict[str, int]:
    """Map each name to its value. ValueError if one has two: the first would be lost."""
    classes: dict[str, int] = {}
    for name, value in named:
        if name in classes:
            raise ValueError(
                f"{file} has the class {name} twice, as {classes[name]} and {value}: give every value a name of its "
                "own."
            )
        classes[name] = value
    return classes


def number_classes(classes: Classes, channels: Sequence[str]) -> tuple[dict[str, int], list[dict[int, int] | None]]:
    """Number classes 1, 2, 3, ... in the order of their values (of the first modality's).

    Args:
        classes: value of each class in the label files, or values that it merges; or such a mapping for each modality.
        channels: names of the modalities.

    Returns:
        number by name; for each channel the number by value in its label files, or None where these are the same.

    Raises:
        ValueError: a class has the value 0 or that of another, there is none, one is to be ignored, or modalities
            differ in their classes.
    """
    of: Mapping[str, Any] = classes
    if not any(isinstance(value, Mapping) for value in classes.values()):
        of = dict.fromkeys(channels, classes)
    elif set(classes) != set(channels):
        raise ValueError(
            f"There are classes of {', '.join(classes)}, but modalities {', '.join(channels)}: name the classes of "
            "each modality, or once for all."
        )
    each = [_foreground(of[channel]) for channel in channels]
    numbers = {name: number for number, name in enumerate(each[0], 1)}
    by_value: list[dict[int, int] | None] = []
    for channel, values in zip(channels, each, strict=True):
        if set(values) != set(numbers):
            raise ValueError(
                f"The classes of {channel} are {', '.join(values)}, but those of {channels[0]} are "
                f"{', '.join(numbers)}: every modality must have the same."
            )
        number_of = {value: numbers[name] for name, own in values.items() for value in own}
        by_value.append(None if all(value == number for value, number in number_of.items()) else number_of)
    return numbers, by_value


def _foreground(classes: Values) -> dict[str, tuple[int, ...]]:
    """Return the values of each class but the background in ascending order, classes in the order of their first."""
    foreground = {
        name: (value,) if isinstance(value, int) else tuple(sorted(value))
        for name, value in classes.items()
        if (name.casefold(), value) != ("background", 0)
    }
    if "ignore" in foreground:
        raise ValueError(
            "A class is named ignore, by which nnU-Net leaves its voxels out of the training, which our planners do "
            "not support: give the class another name."
        )
    values = sorted(chain(*foreground.values()))
    if not values or values[0] < 1 or len(set(values)) < len(values) or "background" in foreground:
        raise ValueError(
            f"Classes need values of their own, 1 or more (0 is the background), but they are {classes}: correct them."
        )
    return dict(sorted(foreground.items(), key=lambda item: item[1]))
