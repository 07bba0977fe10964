import re

from hypothesis import given
from hypothesis import strategies as st

from nnunet_cmc.utils.formatting import clock, counted, dimensions, duration, millimetres


def test_sizes_and_spacings():
    assert dimensions((512, 512, 80)) == "512 x 512 x 80"
    assert millimetres((3, 0.78125, 1e-3)) == "3 x 0.781 x 0.001 mm"
    assert millimetres([0.78125, 1.0], digits=6) == "0.78125 x 1 mm"


def test_numbers_of_things():
    assert [counted(number, "case") for number in range(3)] == ["0 cases", "1 case", "2 cases"]


def test_durations_to_the_second():
    assert [clock(seconds) for seconds in (5.9, 65, 3599, 3600, 90061)] == [
        "0:05",
        "1:05",
        "59:59",
        "1:00:00",
        "25:01:01",
    ]


@given(st.floats(0, 1e7))
def test_durations_in_words_are_rounded_and_no_unit_is_full(seconds):
    numbers = {unit: int(number) for number, unit in re.findall(r"(\d+) (h|min|s)\b", duration(seconds))}
    assert all(numbers.get(unit, 0) < 60 for unit in ("min", "s"))
    told = sum(numbers.get(unit, 0) * length for unit, length in (("h", 3600), ("min", 60), ("s", 1)))
    assert abs(told - seconds) <= (0.5 if "s" in numbers else 30)
