"""How often cases are drawn, and with which partners."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import scipy.stats
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from pair_loaders import REGISTERED, UNPAIRED, dataset_json, save

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.loading.cases import LabeledDataset
from nnunet_cmc.data.loading.sampling import CaseSampler


class Nothing:
    """A dataset of which only the names are asked for."""

    def __init__(self, cases):
        self.identifiers = list(cases)


THREE = {f"{name}{i}": (m,) for m, name in enumerate(("ct", "mr", "us")) for i in range(2 + m)}


@pytest.mark.parametrize(
    ("present", "subjects"),
    [
        (REGISTERED, {}),
        ({**REGISTERED, **UNPAIRED}, {}),
        (UNPAIRED, {}),
        (UNPAIRED, {"ct1": "p", "mr1": "p"}),
        ({**{f"ct{i}": (0,) for i in range(8)}, "mr0": (1,), "mr1": (1,)}, {"ct0": "p", "mr0": "p"}),
        ({f"{m}{i}": (c,) for c, m in enumerate(("ct", "mr")) for i in range(4)}, {f"ct{i}": "p" for i in range(4)}),
        (
            {f"{m}{i}": (c,) for c, m in enumerate(("ct", "mr")) for i in range(4)},
            {"ct0": "p", "ct1": "p", "mr0": "p", "ct2": "q", "mr1": "q", "mr2": "q"},
        ),
        (THREE, {"ct0": "p", "us0": "p"}),
    ],
)
def test_cases_of_one_modality_are_drawn_equally_often(present, subjects):
    np.random.seed(0)
    json = dataset_json(present, subjects)
    json["channel_names"]["2"] = "US"
    sampler = CaseSampler(Nothing(present), DatasetDescription.from_dict(json))
    drawn = Counter()
    for _ in range(4000):
        case = sampler.draw()
        partner = sampler.draw_partner(case)
        drawn.update([case] if partner is None else [case, partner[0]])
    for channels in set(present.values()):
        counts = np.array([drawn[case] for case in present if present[case] == channels])
        variance = counts.mean() * (1 - counts.mean() / 4000)  # of a draw with replacement; pairs of a plan vary less
        chi2 = ((counts - counts.mean()) ** 2 / variance).sum()
        assert chi2 < scipy.stats.chi2.ppf(0.999, max(len(counts) - 1, 1))


@pytest.mark.parametrize(
    "numbers",
    [
        *({"AB": 3, "A": 3, "B": 3}, {"A": 3, "B": 3}, {"AB": 6, "A": 3}, {"AB": 8, "B": 2}, {"AB": 6}),
        *({"AB": 20, "A": 3, "B": 1}, {"ABCD": 20, "AB": 10, "CD": 10, "A": 5, "D": 1}),
        *({"ABC": 10, "A": 10, "B": 10, "C": 10}, {"ABC": 4, "BC": 4}),
    ],
    ids=str,
)
def test_where_pairs_allow_it_all_cases_are_drawn_equally_often(numbers):
    """Registered cases are partners where there are too few single scans."""
    for draws in drawn_of(numbers).values():
        assert draws == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(
    ("numbers", "most"),
    [
        ({"AB": 20, "A": 20, "B": 1}, {"AB": 1.3, "A": 0.9, "B": 1.6}),
        ({"AB": 20, "A": 20}, {"AB": 1.4, "A": 0.9}),
        ({"A": 20, "B": 10, "C": 1}, {"A": 0.9, "B": 1.6, "C": 1.6}),
        ({"A": 20, "B": 1}, {"A": 0.6, "B": 11}),
    ],
    ids=str,
)
def test_scans_of_a_rare_modality_are_drawn_no_more_often_than_they_must(numbers, most):
    """A lone scan of B is the partner of all A only where no registered case has B."""
    found = drawn_of(numbers)
    assert all(draws < most[kind] for kind, draws in found.items()), found


def drawn_of(numbers):
    """Draws of a case of each kind, such as AB with the modalities A and B, relative to the mean of all."""
    kinds = {f"{kind}{i}": kind for kind, number in numbers.items() for i in range(number)}
    json = dataset_json({case: ["ABCD".index(m) for m in kind] for case, kind in kinds.items()}, {})
    json["channel_names"] = {str(channel): name for channel, name in enumerate("ABCD")}
    np.random.seed(0)
    sampler = CaseSampler(Nothing(kinds), DatasetDescription.from_dict(json))
    drawn: dict[str, int] = defaultdict(int)
    for _ in range(8000):
        case = sampler.draw()
        drawn[kinds[case]] += 1
        if partner := sampler.draw_partner(case):
            assert partner[1] in sampler.present[partner[0]]
            assert partner[1] not in sampler.present[case]
            drawn[kinds[partner[0]]] += 1
    mean = sum(drawn.values()) / len(kinds)
    return {kind: drawn[kind] / number / mean for kind, number in numbers.items()}


def test_only_one_modality():
    present = {**UNPAIRED, **REGISTERED}
    sampler = CaseSampler(Nothing(present), DatasetDescription.from_dict(dataset_json(present)), only=1)
    assert sampler.cases == ["mr1", "mr2", "a", "b", "c"]
    assert set(sampler.present.values()) == {(1,)}
    assert sampler.draw_partner("a") is None


def test_the_classes_of_each_modality(tmp_path):
    present = {"ct": (0,), "mr": (1,), "both": (0, 1)}
    for case, shown in {"ct": [1, 3], "mr": [1], "both": [4]}.items():
        save(tmp_path, case, present[case])
        properties = load_pickle(str(tmp_path / f"{case}.pkl"))
        locations = {label: np.zeros((int(label in shown), 4), int) for label in (1, 2, 3, 4)}
        write_pickle({**properties, "class_locations": locations}, str(tmp_path / f"{case}.pkl"))
    sampler = CaseSampler(LabeledDataset(str(tmp_path)), DatasetDescription.from_dict(dataset_json(present)))
    assert sampler.classes(2, 5).astype(int).tolist() == [[0, 1, 0, 1, 1], [0, 1, 0, 0, 1]]
