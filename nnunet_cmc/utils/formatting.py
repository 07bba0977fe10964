"""Sizes, spacings, numbers and durations as texts."""

from collections.abc import Iterable


def dimensions(size: Iterable[int]) -> str:
    """Format a size in voxels: 512 x 512 x 80."""
    return " x ".join(map(str, size))


def millimetres(lengths: Iterable[float], digits: int = 3) -> str:
    """Format a spacing or an extent in mm with so many significant digits: 3 x 1 x 1 mm."""
    return f"{' x '.join(f'{length:.{digits}g}' for length in lengths)} mm"


def counted(number: int, what: str) -> str:
    """Format a number of things: 1 case, 2 cases."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """Format a duration to the second: 0:05 (minutes and seconds), or 2:03:00 with hours."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def duration(seconds: float) -> str:
    """Format a duration in words, rounded: 40 s, 24 min, or 3 h 24 min."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
