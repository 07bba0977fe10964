"""Which cases are drawn, and how often."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
from pair_loaders import REGISTERED, UNPAIRED, dataset_json, save

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.loading.cases import CaseSampler, UnlabeledDataset


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


@pytest.mark.parametrize(("registered", "ct", "mr"), [(3, 3, 3), (0, 3, 3), (6, 3, 0), (8, 0, 2), (6, 0, 0)])
def test_where_pairs_allow_it_all_cases_are_drawn_equally_often(registered, ct, mr):
    """As many scans of each modality, or a few of one that registered cases serve as partners."""
    present = {**{f"r{i}": (0, 1) for i in range(registered)}, **{f"ct{i}": (0,) for i in range(ct)}}
    present |= {f"mr{i}": (1,) for i in range(mr)}
    np.random.seed(0)
    sampler = CaseSampler(Nothing(present), DatasetDescription.from_dict(dataset_json(present)))
    drawn = Counter()
    for _ in range(6000):
        case = sampler.draw()
        partner = sampler.draw_partner(case)
        drawn.update([case] if partner is None else [case, partner[0]])
    counts = np.array([drawn[case] for case in present])
    np.testing.assert_allclose(counts, counts.mean(), rtol=0.1)


def test_only_one_modality():
    present = {**UNPAIRED, **REGISTERED}
    sampler = CaseSampler(Nothing(present), DatasetDescription.from_dict(dataset_json(present)), only=1)
    assert sampler.cases == ["mr1", "mr2", "a", "b", "c"]
    assert set(sampler.present.values()) == {(1,)}
    assert sampler.draw_partner("a") is None


@pytest.mark.parametrize("case", ["c", "never_preprocessed"])
def test_unlabelled_folder(tmp_path, case):
    save(tmp_path, "c", (0, 1))
    expected = ["c"] if case == "c" else []
    folder = tmp_path if case == "c" else tmp_path / "absent"
    assert UnlabeledDataset.get_identifiers(str(folder)) == expected
