"""Weights of fused features, in a training and in the predictions after it."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from short_trainers import short

from nnunet_cmc.trainers.validation_dice import mean_dice


@pytest.mark.parametrize(
    ("scans", "apart"),
    [
        ("registered", ""),
        ("mixed", ""),
        ("unpaired", "CT and MR"),
        ("three", ""),
        ("partly_registered", "CT and T2, MR and T2"),
    ],
)
def test_fused_features_are_weighted_only_where_no_labelled_row_fuses_them(scans, apart, request):
    """What a pretrained model has seen, of other scans, is forgotten."""
    trainer = request.getfixturevalue(scans).trainer(short("CMCTrainer", 1, validation=4))
    trainer.initialize()
    weights, num_modalities = trainer.network.fusion_weights, trainer.num_input_channels
    weights.together.fill_(not apart)
    trainer.run_training()
    assert weights.reliability.any()
    names = trainer.description.modalities
    for m, n in combinations(range(num_modalities), 2):
        found = weights.of([tuple(k in (m, n) for k in range(num_modalities))])
        assert (found is not None) == (f"{names[m]} and {names[n]}" in apart)
    log = Path(trainer.log_file).read_text()
    assert (f"No labelled case has these on one grid: {apart}. Their fused" in log) == bool(apart)


def test_a_decoder_that_saw_no_fused_features_predicts_from_both_as_from_the_better_one(unpaired_with_noise):
    trainer = unpaired_with_noise.trainer(short("CMCTrainer_supervised", 3, 30, 4))
    trainer.run_training()
    trainer.network.eval()
    alone, both = np.zeros((2, 2), int), np.zeros((2, 2), int)
    cases = trainer.dataset_class(str(unpaired_with_noise.images))
    with torch.no_grad():
        for case in ("mr0", "mr1", "mr2", "mr3"):
            data, seg = (torch.from_numpy(part[:][:, :16, :16, :16]) for part in cases.load_case(case)[:2])
            noise = torch.randn_like(data) * torch.tensor([0.3, 0])[:, None, None, None]
            for scan, counts in ((data, alone), (data + noise, both)):
                found = trainer.network(scan[None]).argmax(1)
                np.add.at(counts, (seg.flatten().int(), found.flatten()), 1)
    assert mean_dice(alone) > 0.5
    assert mean_dice(both) > mean_dice(alone) - 0.05
