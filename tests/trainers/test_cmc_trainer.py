import csv
import json
import os
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from short_trainers import resumed, short

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.validation_dice import confusion_alone, mean_dice

TERMS = ("supervised", "csc", "cac", "alpha", "beta")


def train(trainer):
    trainer.run_training()
    return trainer


def weights(trainer) -> dict:
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def log_of(trainer) -> str:
    return Path(trainer.log_file).read_text()


def test_a_run_logs_every_term_and_leaves_what_nnunet_expects(cubes):
    trainer, sent = cubes.trainer(cubes.with_pictures), defaultdict(list)
    to_others = SimpleNamespace(
        log=lambda key, value, step: sent[key].append(value),
        log_summary=lambda *_: None,
        update_config=lambda _: None,
    )
    trainer.logger.loggers.append(to_others)  # where nnU-Net keeps that for Weights & Biases
    train(trainer)
    output = Path(trainer.output_folder)
    checkpoint = torch.load(output / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "TwoByTwo"
    for term in TERMS:
        series = checkpoint["logging"][term]
        assert len(series) == 2
        assert np.isfinite(series).all()
    assert checkpoint["logging"]["supervised"][0] != 0
    for epoch, loss in enumerate(checkpoint["logging"]["train_losses"]):
        weighted = [term.weight.at(epoch, 2) * checkpoint["logging"][term.name][epoch] for term in trainer.recipe.terms]
        assert loss == pytest.approx(sum(weighted), abs=1e-6)
    assert checkpoint["logging"]["csc"][0] > 0
    assert {file.name for file in output.parent.iterdir()} >= {"plans.json", "dataset.json", "dataset_fingerprint.json"}
    log = log_of(trainer)
    assert re.search(r"CT: \d labelled and \d unlabelled cases", log)
    assert "learning rate 0.01" in log
    registered = "case0" in cubes.dataset_json["cmc"]["present_channels"]
    assert f"pairs {8 * registered} registered, {8 * (not registered)} unpaired" in log
    assert not list(output.glob("*.tmp"))
    assert (output / "progress.png").stat().st_size > 10_000
    with open(output / "progress.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for name in (*TERMS, "train_losses", "mean_fg_dice", "pseudo_dice/CT", "pseudo_dice/MR", "lrs"):
        assert [float(row[name]) for row in rows] == pytest.approx(checkpoint["logging"][name], nan_ok=True)
    assert all(float(row["gradient/supervised/encoder CT"]) > 0 for row in rows)
    assert {f"similarity/{name}" for name in ("csc", "csc/others", "cac", "cac/others")} <= rows[0].keys()
    for name in sent.keys() - {"epoch_start_timestamps", "epoch_end_timestamps"}:
        assert sent[name] == pytest.approx([float(row[name]) for row in rows], nan_ok=True)
    assert sent.keys() == rows[0].keys() - {"epoch"}
    dice = [float(row["dice_per_class_or_region/class_1"]) for row in rows]
    assert dice == pytest.approx([values[0] for values in checkpoint["logging"]["dice_per_class_or_region"]])
    assert re.search(r"Pseudo dice alone CT (0\.\d|nan)", log)


def test_each_term_trains_what_it_should(cubes):
    """CSC both encoders; CAC both encoders and both decoders, from unlabelled rows alone."""
    trainer = cubes.trainer()
    trainer.initialize()
    trainer.dataloader_train, _ = trainer.get_dataloaders()
    parts = {
        f"{kind}{m}": list(getattr(trainer.network, kind)[m].parameters())
        for kind in ("encoders", "decoders")
        for m in range(2)
    }
    reached = {term: set() for term in ("supervised", "csc", "cac")}
    for _ in range(3):  # the unpaired forms may have nothing to compare before their banks know both modalities
        batch = Batch(**next(trainer.dataloader_train))
        for term, seen in reached.items():
            trainer.optimizer.zero_grad(set_to_none=True)
            trainer.loss_terms(trainer.network(batch.data, batch.fusion), batch)[term].backward()
            seen |= {name for name, ps in parts.items() if any(p.grad is not None and p.grad.any() for p in ps)}
    assert reached["supervised"] == set(parts)
    assert reached["cac"] == set(parts)
    assert reached["csc"] == {"encoders0", "encoders1"}


def test_gradients_and_similarities_are_those_of_the_terms(registered):
    """The logged norms, against a backward pass of each term by itself; measuring changes no training."""
    trainer = registered.trainer()
    trainer.initialize()
    batch = Batch(**next(trainer.get_dataloaders()[0]))
    output = trainer.network(batch.data, batch.fusion)
    terms = trainer.loss_terms(output, batch)
    trainer._measure_gradients(terms)
    measured = trainer.gradients
    assert all(p.grad is None for p in trainer.network.parameters())
    assert len(measured) == 3 * 4
    for term in ("supervised", "csc", "cac"):
        trainer.optimizer.zero_grad(set_to_none=True)
        terms[term].backward(retain_graph=True)
        for m, name in enumerate(("CT", "MR")):
            for kind in ("encoder", "decoder"):
                grads = [p.grad for p in getattr(trainer.network, f"{kind}s")[m].parameters() if p.grad is not None]
                expected = torch.stack([g.norm() for g in grads]).norm().item() if grads else 0.0
                assert measured[f"gradient/{term}/{kind} {name}"] == pytest.approx(expected, rel=1e-4)
    a, b = ((f - f.mean((2, 3, 4), keepdim=True)).flatten(2) for f in output.features.unbind(1))
    cosine = torch.nn.functional.cosine_similarity(a[:, :, None], b[:, None], dim=3, eps=1e-12)
    partners = cosine.diagonal(dim1=1, dim2=2).mean().item()
    assert trainer.terms["csc"].similarity.diagonal.item() == pytest.approx(partners, abs=1e-3)


def test_a_modality_of_pure_noise_does_not_spoil_the_combination(with_noise):
    """Registered validation patches: both modalities together against the better one alone."""
    trainer = with_noise.trainer()
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 3, 30, 1
    trainer.run_training()
    confusions, combined = [], np.zeros((2, 2), int)
    trainer.network.eval()
    with torch.no_grad():
        for _ in range(10):
            batch = next(trainer.dataloader_val)
            confusions.append(confusion_alone(trainer.network, batch["data"], batch["target"]))
            found = trainer.network(batch["data"]).argmax(1).flatten()
            np.add.at(combined, (batch["target"].flatten().int(), found), 1)
    alone = [mean_dice(confusion) for confusion in sum(confusions)]
    assert alone[with_noise.noise] < 0.5 < alone[1 - with_noise.noise], "noise shows nothing, the other one does"
    assert mean_dice(combined) > max(alone) - 0.02


def test_a_partner_from_another_patient_cannot_change_a_prediction(unpaired):
    trainer = unpaired.trainer()
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[0])
    rows, partners = batch["pairs"].unbind(1)  # CT and MR
    other = batch["data"].clone()
    other[partners, 1] = torch.randn_like(other[partners, 1])
    with torch.no_grad():
        before, after = (trainer.network(data, batch["fusion"]) for data in (batch["data"], other))
    torch.testing.assert_close(after.logits[rows], before.logits[rows])
    torch.testing.assert_close(after.features[rows], before.features[rows])
    assert not torch.allclose(after.logits[partners], before.logits[partners])


def test_fold_all_counts_a_case_once_where_it_looks_for_sides_of_the_body(registered, monkeypatch):
    trainer, asked = registered.trainer(short("CMCTrainer"), fold="all"), []
    monkeypatch.setattr(trainer, "mirror_axes", lambda cases: asked.extend(cases) or ())
    trainer.initialize()
    trainer.get_dataloaders()
    assert sorted(asked) == sorted(set(asked))
    assert asked


def test_half_precision(cubes):
    """Losses, gradients and weights are finite and single; what a GPU does with autocast, a CPU does here."""

    class Half(cubes.with_pictures):
        half_precision = torch.bfloat16

        def update(self, batch):
            layer = self.network.decoders[0].unet.seg_layers[-1]
            watch = layer.register_forward_hook(lambda *seen: dtypes.add(seen[2].dtype))
            with watch:
                return super().update(batch)

    dtypes: set[torch.dtype] = set()
    trainer = train(cubes.trainer(Half))
    assert dtypes == {torch.bfloat16}
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in weights(trainer).values())
    whole = train(cubes.trainer())
    for term in ("supervised", "csc"):
        assert trainer.logger.get_value(term, 0) == pytest.approx(whole.logger.get_value(term, 0), rel=0.1)


@pytest.mark.parametrize(("name", "share"), [("CMCTrainer_contrastTeacher", 0.5), ("CMCTrainerPaper", 1)])
def test_unlabelled_pairs_are_a_share_of_the_labelled_ones(registered, name, share):
    registered.plans["configurations"]["3d_fullres"]["batch_size"] = 4
    trainer = registered.trainer(short(name))
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[0])
    assert len(batch["target"]) == 4
    assert len(batch["data"]) == 4 + 4 * share


@pytest.mark.parametrize(("pairs", "labeled", "unlabeled"), [(4, 2, 2), (3, 1, 2), (2, 1, 1), (1, 1, 1)])
def test_pairs_with_pseudo_labels_take_the_place_of_labelled_ones(registered, pairs, labeled, unlabeled):
    """So a step costs the same, but where one labelled pair is all there is."""
    registered.plans["configurations"]["3d_fullres"]["batch_size"] = pairs
    trainer = registered.trainer(short("CMCTrainer"))
    seen: dict[int, set[tuple[int, int]]] = {0: set(), 1: set()}
    update = trainer.update

    def noting(batch):
        seen[trainer.current_epoch].add((len(batch["target"]), len(batch["data"]) - len(batch["target"])))
        return update(batch)

    trainer.update = noting
    trainer.run_training()
    assert seen == {0: {(pairs, 0)}, 1: {(labeled, unlabeled)}}


def test_several_workers(registered, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = train(registered.trainer())
    assert np.isfinite(trainer.logger.get_value("supervised", 1))


@pytest.mark.parametrize("become", ["garbage", "nothing"])
def test_seeded_runs_are_equal_to_the_bit_and_hidden_labels_do_not_matter(cubes, become):
    first = weights(train(cubes.trainer()))
    for case in cubes.hidden():
        file = cubes.images / f"{case}_seg.b2nd"
        garbage = np.random.default_rng(0).integers(0, 2, blosc2.open(str(file)).shape).astype(np.int16)
        os.remove(file)
        properties = load_pickle(str(cubes.images / f"{case}.pkl"))
        del properties["class_locations"]
        if become == "garbage":
            blosc2.asarray(garbage, urlpath=str(file))
            properties["class_locations"] = {1: np.zeros((1, 4), dtype=int)}
        write_pickle(properties, str(cubes.images / f"{case}.pkl"))
    assert same(weights(train(cubes.trainer())), first)


def test_another_seed_is_another_run(registered):
    trainer = registered.trainer()
    trainer.seed = 1
    assert not same(weights(train(trainer)), weights(train(registered.trainer())))


def test_resumed_training_equals_uninterrupted_training(cubes):
    whole = train(cubes.trainer())
    again = resumed(cubes, type(whole))
    assert same(weights(again), weights(whole))
    assert same(again.terms.state_dict(), whole.terms.state_dict())
    assert again.logger.get_value("supervised", None) == whole.logger.get_value("supervised", None)


def test_without_unlabelled_cases_it_trains_supervised_and_says_so(registered):
    registered.split(["case0", "case1"], ["case2"], [])
    trainer = train(registered.trainer())
    assert "There is no unlabelled case" in log_of(trainer)
    assert all(trainer.logger.get_value("cac", None)), "of labelled cases"


def test_scans_without_a_label_file_are_unlabelled_in_every_fold(registered):
    registered.add_unlabeled("more", [0])
    trainer = registered.trainer()
    trainer.initialize()
    assert "more" in trainer.fold_cases.samplers(None).unlabeled.cases
    registered.add_unlabeled("case0", [0])
    with pytest.raises(ValueError, match="Case case0 is in imagesTr and in imagesUn"):
        trainer.fold_cases.samplers(None)


def test_unlabelled_scans_of_validation_and_test_subjects(registered):
    for case in ("of_val", "of_test", "of_train", "of_nobody"):
        registered.add_unlabeled(case, [0])
    (fold,) = json.loads((registered.folder / "splits_final.json").read_text())
    cmc = registered.dataset_json["cmc"]
    cmc["subjects"] = {
        "of_val": fold["val"][0],
        "of_test": "tested",
        "test_case": "tested",
        "of_train": fold["train"][0],
    }
    trainer = registered.trainer()
    trainer.initialize()
    assert {"of_val", "of_test", "of_train", "of_nobody"} <= set(trainer.fold_cases.samplers(None).unlabeled.cases)
    log = Path(trainer.log_file)
    assert "Transductive: 2 case(s) of imagesUn" in log.read_text()
    assert "trained on without a label: of_test, of_val. `nnunet_cmc split --inductive`" in log.read_text()

    splits = [{**fold, "left_out": ["of_test", "of_val"]}]
    (registered.folder / "splits_final.json").write_text(json.dumps(splits))
    log.write_text("")
    cases = set(trainer.fold_cases.samplers(None).unlabeled.cases)
    assert {"of_train", "of_nobody"} <= cases
    assert not {"of_test", "of_val"} & cases
    assert "Transductive" not in log.read_text()
    assert "Excluded by the fold (left_out): of_test, of_val of imagesUn." in log.read_text()


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ((["ct0"], ["ct1", "mr1"], ["mr0"]), "Modality MR .channel 1. has no labelled case in fold 0"),
        ((["ct0", "mr0"], [], ["mr1"]), "has no case in .val.*"),
        ((["ct0", "mr0"], ["ct1"], ["ct0"]), "ct0"),
        ((["ct0", "mr9"], ["ct1"], []), "Case mr9 of fold 0 is not in"),
    ],
)
def test_folds_that_cannot_be_trained(unpaired, split, sentence):
    unpaired.split(*split)
    with pytest.raises(ValueError, match=sentence):
        train(unpaired.trainer())


def test_a_fold_that_is_not_there(unpaired):
    with pytest.raises(ValueError, match="has no fold 7 but 1 in all, numbered from 0: give another number, or make"):
        train(unpaired.trainer(fold=7))


def test_plans_and_labels_that_are_not_for_us(registered):
    foreign = {"3d_fullres": {"architecture": {"network_class_name": "architectures.unet.PlainConvUNet"}}}
    with pytest.raises(ValueError, match=r"cannot train the plans nnUNetPlans .* -pl CMCPlanner"):
        registered.trainer(plans_name="nnUNetPlans", configurations=foreign)
    with pytest.raises(ValueError, match="no configuration 3d_fullres, only 2d"):
        registered.trainer(configurations={"2d": {}})
    assert not registered.results.exists(), "nothing is written before the refusal"
    registered.dataset_json["labels"] = {"background": 0, "whole": [1, 2], "core": 2}
    registered.dataset_json["regions_class_order"] = [1, 2]
    with pytest.raises(ValueError, match="region-based labels"):
        registered.trainer()
    registered.dataset_json["labels"] = {"background": 0, "cube": 1, "ignore": 2}
    with pytest.raises(ValueError, match="an ignore label"):
        registered.trainer()


def test_seed_from_the_environment(registered, monkeypatch):
    monkeypatch.setenv("NNUNET_CMC_SEED", "7")
    trainer = registered.trainer(CMCTrainer)
    trainer.initialize()
    assert trainer.seed == 7
    monkeypatch.setenv("NNUNET_CMC_SEED", "lucky")
    with pytest.raises(ValueError, match="NNUNET_CMC_SEED is 'lucky'"):
        registered.trainer(CMCTrainer).initialize()
