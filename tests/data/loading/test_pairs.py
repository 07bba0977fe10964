"""Batches of pairs from a handful of preprocessed cases whose voxels say where they come from."""

import os

import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from pair_loaders import BODY, CT_ONLY, PATCH, REGISTERED, UNPAIRED, loader, save, transforms
from threadpoolctl import ThreadpoolController

from nnunet_cmc.data.loading.fusion import FusedAndPart, FuseOrSplit
from nnunet_cmc.data.loading.views import StrongView


def test_registered_case_is_one_row_and_its_own_pair(tmp_path):
    batch = loader(tmp_path, REGISTERED, unlabeled=["c"]).generate_train_batch()
    assert batch["data"].shape == (4, 2, *PATCH)
    assert batch["target"].shape == (2, 1, *PATCH)
    assert batch["positions"].shape == (4, 3, 4, 4, 4)
    assert batch["positions"].isnan().all()
    assert batch["pairs"].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert batch["keys"][2:] == ["c", "c"]
    # both channels come from the same crop: they count the same voxels
    inside = batch["data"][0, 0] > 0
    difference = (batch["data"][0, 1] - batch["data"][0, 0])[inside]
    assert (difference - 1).abs().max() < 0.2


def test_a_batch_is_loaded_by_one_thread_as_nnunets(tmp_path):
    """The pools are looked for once in a process; each batch limits them, and gives them back as they were."""
    within = []
    made = loader(
        tmp_path, REGISTERED, chain=lambda **sample: (within.append(threads()), transforms(False)(**sample))[1]
    )
    with ThreadpoolController().limit(limits=2):
        for _ in range(2):
            made.generate_train_batch()
            assert threads() == {2}
    assert within
    assert {*map(frozenset, within)} == {frozenset({1})}


def threads() -> set[int]:
    return {pool["num_threads"] for pool in ThreadpoolController().info()}


@pytest.mark.parametrize(("present", "rows"), [(REGISTERED, 1), (UNPAIRED, 2)])
def test_fewer_unlabelled_pairs_than_labelled_ones(tmp_path, present, rows):
    unlabeled = list(present)[1::2]
    batch = loader(tmp_path, present, unlabeled=unlabeled, pairs=4, unlabeled_pairs=1).generate_train_batch()
    assert len(batch["target"]) == 4 * rows
    assert len(batch["data"]) == 5 * rows
    assert len(batch["pairs"]) == 5
    assert {*batch["keys"][4 * rows :]} <= {*unlabeled}
    assert not {*batch["keys"][: 4 * rows]} & {*unlabeled}


def test_unpaired_case_gets_a_partner_of_the_other_modality_as_a_row_of_its_own(tmp_path):
    batch = loader(tmp_path, UNPAIRED, unlabeled=["ct2", "mr2"]).generate_train_batch()
    assert len(batch["data"]) == 8
    assert len(batch["target"]) == 4
    for pair in batch["pairs"]:
        assert len(set(pair.tolist())) == 2
        for modality, row in enumerate(pair):
            assert batch["keys"][row].startswith("ct" if modality == 0 else "mr")
            assert batch["data"][row, modality].any()
            assert not batch["data"][row, 1 - modality].any(), "an absent channel is exactly zero"


def test_partner_lies_at_the_same_relative_position(tmp_path):
    same_box = loader(tmp_path, UNPAIRED, oversample_foreground_percent=0.0, pairs=1)
    for _ in range(10):
        batch = same_box.generate_train_batch()
        torch.testing.assert_close(batch["positions"][0], batch["positions"][1], atol=0.06, rtol=0)


def test_partner_of_the_same_subject_comes_first(tmp_path):
    subjects = {"ct1": "p", "mr2": "p", "ct2": "q", "mr1": "r"}
    sampler = loader(tmp_path, UNPAIRED, subjects).labeled
    assert {sampler.draw_partner("ct1") for _ in range(20)} == {("mr2", 1)}
    assert {sampler.draw_partner("mr2") for _ in range(20)} == {("ct1", 0)}
    assert {sampler.draw_partner("ct2") for _ in range(20)} == {("mr1", 1)}, "the one that has nobody else"
    strangers = loader(tmp_path, UNPAIRED).labeled
    assert {strangers.draw_partner("ct2") for _ in range(40)} == {("mr1", 1), ("mr2", 1)}


def test_positions_are_those_of_the_body_box(tmp_path):
    """At a voxel whose value reveals D + H + W, the three relative positions must add up to the same voxel."""
    batch = loader(tmp_path, CT_ONLY, oversample_foreground_percent=0.0).generate_train_batch()
    box = torch.tensor(BODY)
    voxel = batch["positions"] * (box[:, 1] - box[:, 0])[:, None, None, None] + box[:, 0][:, None, None, None]
    centre = torch.nn.functional.avg_pool3d(batch["data"][:, :1], 4)[:, 0]
    covered = torch.nn.functional.avg_pool3d((batch["data"][:, :1] > 0).float(), 4)[:, 0] == 1
    expected = voxel.sum(1) - 1.5 + 1.0 + 0.05  # centres are half a voxel in, on three axes; values start at 1
    torch.testing.assert_close(centre[covered], expected[covered], atol=0.1, rtol=0)


def test_foreground_is_in_every_oversampled_labelled_patch(tmp_path):
    forced = loader(tmp_path, REGISTERED, oversample_foreground_percent=1.0)
    assert all((forced.generate_train_batch()["target"] == 1).flatten(1).any(1).all() for _ in range(5))


def test_both_scans_of_an_oversampled_pair_are_centred_on_the_same_class(tmp_path):
    """Lesions of two patients lie at unlike places, and patches at the same place would show one of them."""
    for case, (channel,) in UNPAIRED.items():
        far, near = (1, 2) if channel == 0 else (2, 1)
        save(tmp_path, case, (channel,), far=far, near=near)
    forced = loader(tmp_path, UNPAIRED, oversample_foreground_percent=1.0, pairs=1)
    shown = [[{*row.unique().tolist()} - {0, -1} for row in forced.make_batch()["target"]] for _ in range(20)]
    assert all(first == second for first, second in shown)
    assert {k for pair in shown for k in pair[0]} == {1, 2}


def test_a_partner_without_the_class_lies_at_the_same_relative_position(tmp_path):
    for case, (channel,) in UNPAIRED.items():
        save(tmp_path, case, (channel,), far=None, near=1 + channel)
    forced = loader(tmp_path, UNPAIRED, oversample_foreground_percent=1.0, pairs=1)
    for _ in range(10):
        positions = forced.make_batch()["positions"]
        torch.testing.assert_close(positions[0], positions[1], atol=0.06, rtol=0)


def test_unlabelled_pairs_replace_those_that_are_not_centred_on_foreground(tmp_path):
    pairs = {"pairs": 3, "unlabeled_pairs": 2, "oversample_foreground_percent": 1 / 3, "unlabeled": ["a"]}
    for _ in range(5):
        batch = loader(tmp_path, REGISTERED, replaced=2, **pairs).make_batch()
        assert (len(batch["target"]), len(batch["data"])) == (1, 3)
        assert (batch["target"] > 0).any()
    alone = loader(tmp_path, REGISTERED, replaced=2, pairs=3).make_batch()
    assert len(alone["target"]) == len(alone["data"]) == 3, "there is nothing to replace them"


def test_fusion_sets(tmp_path):
    for split, expected in ((0.0, True), (1.0, False)):
        batch = loader(tmp_path, REGISTERED, unlabeled=["c"], fusion=FuseOrSplit(split)).generate_train_batch()
        assert batch["fusion"][:2, 0, 1].eq(expected).all()
        assert batch["fusion"].diagonal(dim1=1, dim2=2).all(), "every decoder is in its own set"
        assert not batch["fusion"][2:, 0, 1].any(), "unlabelled modalities are on their own"
    for fusion in (FuseOrSplit(), FusedAndPart()):
        batch = loader(tmp_path, UNPAIRED, fusion=fusion).generate_train_batch()
        present = torch.stack([(row != 0).flatten(1).any(1) for row in batch["data"]])
        assert batch["fusion"].equal(present[:, None] & present[:, :, None])


def test_nothing_that_a_label_went_into_reaches_the_unlabelled_rows(tmp_path):
    arguments = {"present": REGISTERED, "unlabeled": ["b", "c"], "augment": True, "seed": 3}
    before = loader(tmp_path, **arguments).generate_train_batch()
    for case in ("b", "c"):
        os.remove(tmp_path / f"{case}_seg.b2nd")
        properties = load_pickle(str(tmp_path / f"{case}.pkl"))
        properties["class_locations"] = {1: np.array([[0, 10**6, 10**6, 10**6]])}
        write_pickle(properties, str(tmp_path / f"{case}.pkl"))
    after = loader(tmp_path, **arguments).generate_train_batch()
    assert before["keys"] == after["keys"]
    assert all(before[key].equal(after[key]) for key in ("data", "target", "fusion", "pairs"))


def test_augmented_rows_keep_absent_channels_exactly_zero(tmp_path):
    source = loader(tmp_path, UNPAIRED, patch=(24, 24, 24), augment=True, pairs=4)
    for _ in range(4):
        batch = source.generate_train_batch()
        assert ((batch["data"] != 0).flatten(2).any(2).sum(1) == 1).all()
        assert batch["data"].isfinite().all()


def test_augmentation_moves_positions_with_the_image(tmp_path):
    """Mirrored and rotated rows still satisfy value ~ D + H + W, wherever intensity was left alone."""
    source = loader(tmp_path, CT_ONLY, patch=(24, 24, 24), augment=True, oversample_foreground_percent=0.0, seed=0)
    box, agreeing = torch.tensor(BODY), 0
    for _ in range(12):
        batch = source.generate_train_batch()
        voxel = (batch["positions"] * (box[:, 1] - box[:, 0])[:, None, None, None]).sum(1) + box[:, 0].sum()
        for row in range(len(voxel)):
            inside = ((batch["positions"][row] > 0) & (batch["positions"][row] < 1)).all(0)
            value = torch.nn.functional.avg_pool3d(batch["data"][row, :1], 4)[0]
            if inside.sum() > 8:
                agreeing += float((value[inside] - voxel[row][inside] + 0.45).abs().median()) < 0.5
    assert agreeing >= 6


def test_with_a_seed_the_batch_is_a_function_of_its_number(tmp_path):
    arguments = {"present": REGISTERED, "unlabeled": ["c"], "augment": True, "patch": (24, 24, 24)}
    first = loader(tmp_path, seed=1, **arguments)
    batches = [first.generate_train_batch() for _ in range(3)]
    np.random.rand(5)
    torch.rand(5)
    again = loader(tmp_path, seed=1, first_batch=2, **arguments).generate_train_batch()
    assert again["data"].equal(batches[2]["data"])
    assert not again["data"].equal(batches[1]["data"])
    other = loader(tmp_path, seed=2, first_batch=2, **arguments).generate_train_batch()
    assert not other["data"].equal(again["data"])


def test_seeded_batches_leave_the_global_generators_alone(tmp_path):
    source = loader(tmp_path, REGISTERED, seed=1)
    np.random.seed(0)
    torch.manual_seed(0)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(0)
    torch.manual_seed(0)
    source.generate_train_batch()
    assert (np.random.rand(), torch.rand(1)) == expected


def test_a_stream_without_the_other_modality_pairs_nothing(tmp_path):
    batch = loader(tmp_path, {"ct1": (0,), "ct2": (0,), "mr1": (1,)}, unlabeled=["ct2"]).generate_train_batch()
    assert batch["pairs"][2:, 1].eq(-1).all()


def test_two_views_of_unlabelled_rows_differ_in_intensity_alone(tmp_path):
    source = loader(tmp_path, UNPAIRED, unlabeled=["ct2", "mr2"], views=(StrongView(),), pairs=4, seed=0)
    agreements = []
    for _ in range(5):
        batch = source.generate_train_batch()
        weak, strong = batch["data"][len(batch["target"]) :], batch["strong"]
        assert weak.shape == strong.shape
        assert (weak != 0).flatten(2).any(2).equal((strong != 0).flatten(2).any(2))
        there = (weak != 0).flatten(2).any(2)
        for w, s in zip(weak[there], strong[there], strict=True):
            agreements.append(torch.corrcoef(torch.stack([w.flatten(), s.flatten()]))[0, 1].item())
    assert np.median(agreements) > 0.8, "nothing has moved"
    assert min(agreements) < 0.999, "something has changed"


@pytest.mark.parametrize(("present", "volumes"), [(REGISTERED, 2 * 2 + 2), (UNPAIRED, 4 * 2 + 4)])
def test_only_the_voxels_of_a_patch_are_read(tmp_path, monkeypatch, present, volumes):
    """Images and labels of two labelled pairs, images of two unlabelled ones; of no absent channel."""
    source = loader(tmp_path, present, unlabeled=list(present)[1::2])
    read = []

    class Watched:
        """A volume on disk that notes how many voxels are asked of it."""

        def __init__(self, array):
            self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

        def __getitem__(self, where):
            part = self.array[where]
            read.append(np.prod(part.shape))
            return part

    for sampler in (source.labeled, source.unlabeled):
        load = sampler.dataset.load_case

        def watched(case, load=load):
            data, seg, previous, properties = load(case)
            return Watched(data), None if seg is None else Watched(seg), previous, properties

        monkeypatch.setattr(sampler.dataset, "load_case", watched)
    source.generate_train_batch()
    assert len(read) == volumes
    assert max(read) <= np.prod(PATCH) * max(map(len, present.values()))
