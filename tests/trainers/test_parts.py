"""Trainers combined by inheritance: every pair of parts, in both orders, keeps both or is refused by name."""

from functools import cache
from itertools import combinations

import pytest
import torch
from plans import NETWORK

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.trainers.ablations import (
    CMCTrainerBaseline,
    CMCTrainerCorrectedSchedules,
    CMCTrainerNoCAC,
    CMCTrainerNoCSC,
    CMCTrainerNoMIA,
    CMCTrainerNoModalityDropout,
    CMCTrainerOneSided,
    CMCTrainerOnlyModality0,
    CMCTrainerOnlyModality1,
)
from nnunet_cmc.trainers.adapters import CMCTrainerAdapters
from nnunet_cmc.trainers.as_printed import CMCTrainerAsPrinted
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.copy_paste import CMCTrainerCopyPaste
from nnunet_cmc.trainers.deep_supervision import CMCTrainerDeepSupervision
from nnunet_cmc.trainers.few_labels import CMCTrainerFewLabels
from nnunet_cmc.trainers.mean_teacher import CMCTrainerMeanTeacher
from nnunet_cmc.trainers.skip_fusion import CMCTrainerFusedAndSplit, CMCTrainerSkipFusion

ATTRIBUTES = (
    "pair_loader", "consistency_losses", "only_modality", "modality_dropout", "mirrored_axes", "batch_dice", "terms",
    "fine_tuning_rate",
)  # fmt: skip
PARTS = [
    CMCTrainerBaseline, CMCTrainerCorrectedSchedules, CMCTrainerNoCAC, CMCTrainerNoCSC, CMCTrainerNoMIA,
    CMCTrainerNoModalityDropout, CMCTrainerOneSided, CMCTrainerOnlyModality0, CMCTrainerOnlyModality1,
    CMCTrainerAdapters, CMCTrainerAsPrinted, CMCTrainerCopyPaste, CMCTrainerDeepSupervision, CMCTrainerFewLabels,
    CMCTrainerMeanTeacher, CMCTrainerFusedAndSplit, CMCTrainerSkipFusion,
]  # fmt: skip
LOADERS = "pair_loader", {CMCTrainerAsPrinted, CMCTrainerFusedAndSplit}, {CMCTrainerCopyPaste, CMCTrainerMeanTeacher}
FUSED = {CMCTrainerSkipFusion, CMCTrainerFusedAndSplit, CMCTrainerFewLabels}
REFUSED = [
    LOADERS,
    ("pair_loader", {CMCTrainerAsPrinted}, {CMCTrainerFusedAndSplit}),
    ("consistency_losses", {CMCTrainerAsPrinted}, {CMCTrainerOneSided}),
    ("only_modality", {CMCTrainerOnlyModality0}, {CMCTrainerOnlyModality1}),
    ("skip fusion needs two", {CMCTrainerOnlyModality0, CMCTrainerOnlyModality1}, FUSED),
]
PAIRS = [(a, b) for a, b in combinations(PARTS, 2) if not (issubclass(a, b) or issubclass(b, a))]


def network_of(trainer: type[CMCTrainer]) -> CMCNet:
    torch.manual_seed(0)
    encoder = {"features_per_stage": [4, 8, 8], "n_blocks_per_stage": [1, 1, 1]}
    network = CMCNet(2, 2, **{**NETWORK, "encoder_kwargs": encoder, "decoder_channels": [4, 4]})
    trainer.modify_network(network)
    return network


@cache
def described(trainer: type[CMCTrainer]) -> dict:
    """All that a part may change, but for methods in which every trainer calls its ``super()``."""
    network, running = network_of(trainer), object.__new__(trainer)
    running.current_epoch, running.num_epochs = 3, 10
    return {
        "mia": type(network.mia),
        "encoders": len({*network.encoders}),
        "skip fusion": network.skip_fusion is not None,
        "deep": [len(decoder.deep["seg_layers"]) for decoder in network.decoders],
        "hooks": len(network._forward_pre_hooks),
        "weights": {name: value.sum().item() for name, value in network.state_dict().items()},
        **{name: getattr(trainer, name) for name in ATTRIBUTES},
        **running.consistency_weights(),
    }


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda part: part.__name__)
def test_each_pair_keeps_both_parts_in_either_order_or_is_refused(first, second):
    for reason, some, others in REFUSED:
        if (first in some and second in others) or (second in some and first in others):
            for bases in ((first, second), (second, first)):
                with pytest.raises(ValueError, match=f"X .*{reason}"):
                    network_of(type("X", bases, {}))
            return
    found = described(type("X", (first, second), {}))
    assert found == described(type("X", (second, first), {}))
    parts, default = [described(first), described(second)], described(CMCTrainer)
    for name in found.keys() - {"weights"}:
        changed = [part[name] for part in parts if name in part and part[name] != default.get(name)]
        if name in ("alpha", "beta") and 0 in changed:  # a term that one part leaves out is left out
            changed = [0]
        assert found[name] == (changed or [default.get(name)])[0], name


def test_a_class_may_choose_for_itself():
    class Chosen(CMCTrainerFusedAndSplit, CMCTrainerCopyPaste):
        pair_loader = CMCTrainerCopyPaste.pair_loader

    assert Chosen.pair_loader is CMCTrainerCopyPaste.pair_loader
    again = type("Again", (CMCTrainerFusedAndSplit,), {"pair_loader": CMCTrainerFusedAndSplit.pair_loader})
    with pytest.raises(ValueError, match="Both cannot be Chosen and Again at once, which have each a pair_loader"):
        type("Both", (Chosen, again), {})


def test_one_sided_cac_learns_from_what_the_student_of_a_mean_teacher_sees(registered):
    """In whatever order they are combined: beside what was pasted, what the weak view shows would be a lie."""
    for bases in ((CMCTrainerOneSided, CMCTrainerCopyPaste), (CMCTrainerCopyPaste, CMCTrainerOneSided)):
        trainer = registered.trainer(type("X", bases, {"seed": 0, "epochs": 1, "iterations": (1, 1)}))
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        batch = next(trainer.dataloader_train)
        with torch.no_grad():
            expected = trainer.network(batch["strong"]).softmax(1)
        joint = []
        terms = trainer.loss_terms
        trainer.loss_terms = lambda output, whole: joint.append(whole["joint"]) or terms(output, whole)  # noqa: B023
        trainer.train_step(batch)
        torch.testing.assert_close(joint[0], expected)
