"""Pair sampling on a handful of preprocessed cases whose voxels say where they come from."""

import os
import random
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.loading.cases import CaseSampler, UnlabeledDataset
from nnunet_cmc.data.loading.fusion import FusedAndSingle, FuseOrSplit
from nnunet_cmc.data.loading.locating import LocatingTransform, located
from nnunet_cmc.data.loading.pairs import PairLoader
from nnunet_cmc.data.loading.seeding import seeded
from nnunet_cmc.data.loading.views import StrongView, perturbation

PATCH = (16, 16, 16)
SHAPE = (24, 32, 28)
BODY = [[2.0, 22.0], [4.0, 28.0], [4.0, 24.0]]


# of a flat patch nnU-Net reads no more slices than it has, but more of each slice
FLAT_SHAPE, FLAT_PATCH, FLAT_READ, FLAT_STRIDE = (13, 40, 36), (10, 36, 32), (10, 42, 42), (2, 4, 4)


def save(folder, case, channels, seed=0, shape=SHAPE):
    """A case whose present channels count voxels along W, H, ... and whose class 1 is a cube in one corner."""
    rng = np.random.default_rng(seed)
    data = np.zeros((2, *shape), dtype=np.float32)
    ramp = np.indices(shape).sum(0) + 1.0
    for channel in channels:
        data[channel] = ramp + channel + rng.uniform(0, 0.1, shape)
    seg = np.zeros((1, *shape), dtype=np.int16)
    seg[0, shape[0] - 6 : shape[0] - 2, 24:28, 20:24] = 1
    properties = {
        "present_channels": list(channels),
        "body_box": BODY,
        "class_locations": {1: np.argwhere(seg == 1)},
    }
    sizes = {"chunks": (1, 16, 16, 16), "blocks": (1, 8, 8, 8)}
    nnUNetDatasetBlosc2.save_case(data, seg, properties, os.path.join(folder, case), **sizes)


def dataset_json(present, subjects=None):
    return {
        "channel_names": {"0": "CT", "1": "MR"},
        "labels": {"background": 0, "cube": 1},
        "file_ending": ".nii.gz",
        "cmc": {"version": 1, "present_channels": {c: list(p) for c, p in present.items()}, "subjects": subjects or {}},
    }


def transforms(augment):
    """nnU-Net's augmentation, or none, so that voxel values can be traced."""
    if augment:
        stock = nnUNetTrainer.get_training_transforms(PATCH, (-0.5, 0.5), None, (0, 1, 2), False)
        return located(stock)
    return LocatingTransform(SpatialTransform(PATCH, 0, False))


def loader(
    folder, present, subjects=None, unlabeled=(), patch=PATCH, final=PATCH, shape=SHAPE, augment=False, chain=None,
    pairs=2, **kwargs,
):  # fmt: skip
    for i, (case, channels) in enumerate(present.items()):
        if not os.path.isfile(os.path.join(folder, case + ".b2nd")):
            save(folder, case, channels, i, shape)
    json = dataset_json(present, subjects)
    description = DatasetDescription.from_dict(json)
    labeled = CaseSampler(nnUNetDatasetBlosc2(str(folder), [c for c in present if c not in unlabeled]), description)
    hidden = CaseSampler(UnlabeledDataset(dict.fromkeys(unlabeled, str(folder))), description) if unlabeled else None
    chain = chain or transforms(augment)
    arguments = {"oversample_foreground_percent": 0.33, "fusion": FuseOrSplit(), **kwargs}
    return PairLoader(
        labeled, hidden, pairs, pairs, patch, final, LabelManager(json["labels"], None),
        transforms=chain, unlabeled_transforms=chain, **arguments,
    )  # fmt: skip


def flat_loader(folder, present, stock, **kwargs):
    """A loader of flat patches, augmented by ``stock``, a chain of nnU-Net."""
    return loader(folder, present, patch=FLAT_READ, final=FLAT_PATCH, shape=FLAT_SHAPE, chain=located(stock), **kwargs)


REGISTERED = {"a": (0, 1), "b": (0, 1), "c": (0, 1)}
CT_ONLY = {"ct1": (0,), "ct2": (0,), "ct3": (0,)}
UNPAIRED = {"ct1": (0,), "ct2": (0,), "mr1": (1,), "mr2": (1,)}


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


def test_fusion_sets(tmp_path):
    for split, expected in ((0.0, True), (1.0, False)):
        batch = loader(tmp_path, REGISTERED, unlabeled=["c"], fusion=FuseOrSplit(split)).generate_train_batch()
        assert batch["fusion"][:2, 0, 1].eq(expected).all()
        assert batch["fusion"].diagonal(dim1=1, dim2=2).all(), "every decoder is in its own set"
        assert not batch["fusion"][2:, 0, 1].any(), "unlabelled modalities are on their own"
    for fusion in (FuseOrSplit(), FusedAndSingle()):
        batch = loader(tmp_path, UNPAIRED, fusion=fusion).generate_train_batch()
        present = torch.stack([(row != 0).flatten(1).any(1) for row in batch["data"]])
        assert batch["fusion"].equal(present[:, None] & present[:, :, None])


@pytest.mark.parametrize("channels", [(0,), (0, 2), (0, 1, 2)])
def test_every_row_is_shown_fused_and_as_one_random_modality(channels):
    drawn = [FusedAndSingle()(channels, 3) for _ in range(30)]
    there = torch.isin(torch.arange(3), torch.tensor(channels))
    singles = set()
    for fusion in drawn:
        assert fusion.diagonal().equal(there), "every modality is in its own set"
        alone = [m for m in channels if fusion[m].sum() == 1]
        others = [m for m in channels if m not in alone]
        assert len(alone) == 1
        assert all(fusion[m].equal(there) for m in others)
        singles |= {*alone}
    assert singles == {*channels}


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


class Remembers:
    """An augmentation that notes each sample and the random state that it was made from."""

    def __init__(self, transforms):
        self.transforms, self.calls = transforms, []

    def __call__(self, **sample):
        kept = {name: tensor.clone() for name, tensor in sample.items() if name != "regression_target"}
        self.calls.append((np.random.get_state(), torch.get_rng_state(), random.getstate(), kept))
        return self.transforms(**sample)


@pytest.mark.parametrize("present", [REGISTERED, UNPAIRED])
def test_rows_of_flat_patches_are_nnunets_own(tmp_path, present):
    """Labelled and unlabelled rows, registered or not, against nnU-Net's dummy 2-D augmentation of what was read."""
    stock = nnUNetTrainer.get_training_transforms(FLAT_PATCH, (-np.pi, np.pi), None, (0, 1, 2), True)
    source = flat_loader(tmp_path, present, stock, unlabeled=list(present)[1::2], seed=0)
    source.transforms = source.unlabeled_transforms = remembered = Remembers(source.transforms)
    for _ in range(4):
        remembered.calls.clear()
        batch = source.generate_train_batch()
        assert len(remembered.calls) == len(batch["data"])
        assert batch["data"].shape[1:] == (2, *FLAT_PATCH)
        for row, (numpy_state, torch_state, python_state, sample) in enumerate(remembered.calls):
            assert sample["image"].shape[1:] == FLAT_READ
            with seeded(0):  # puts the generators back
                np.random.set_state(numpy_state)
                torch.set_rng_state(torch_state)
                random.setstate(python_state)
                expected = stock(**sample)
            has = batch["fusion"][row].diagonal()
            assert batch["data"][row][has].equal(expected["image"])
            assert not batch["data"][row][~has].any()
            if row < len(batch["target"]):
                assert batch["target"][row].equal(expected["segmentation"])


def test_positions_in_flat_patches_are_those_of_the_body_box(tmp_path):
    """Turned and scaled in each slice and mirrored along all axes, voxels still count D + H + W."""
    spatial = SpatialTransform(FLAT_PATCH[1:], 0, False, p_rotation=1, p_scaling=1, scaling=(0.8, 1.2))
    stock = ComposeTransforms([Convert3DTo2DTransform(), spatial, Convert2DTo3DTransform(), MirrorTransform((0, 1, 2))])
    source = flat_loader(tmp_path, UNPAIRED, stock, unlabeled=["ct2", "mr2"], seed=0)
    box, compared = torch.tensor(BODY), 0
    for _ in range(4):
        batch = source.generate_train_batch()
        assert batch["positions"].shape == (8, 3, 5, 9, 8)
        voxel = (batch["positions"] * (box[:, 1] - box[:, 0])[:, None, None, None]).sum(1) + box[:, 0].sum()
        for row, values in enumerate(batch["data"]):
            modality = int(batch["fusion"][row].diagonal().nonzero())
            covered = minimum_of_cells(values[modality] > modality + 0.99)
            value = torch.nn.functional.avg_pool3d(values[modality][None], FLAT_STRIDE)[0]
            expected = voxel[row] - 1.5 + 1.0 + modality + 0.05
            # the outermost voxels of the volume are mixed with the zeros around it
            near = (value - expected).abs()[covered]
            compared += len(near)
            assert near.median() < 0.05
            assert (near < 0.1).float().mean() > 0.8
    assert compared > 2000


def minimum_of_cells(mask):
    return -torch.nn.functional.max_pool3d(-mask[None].float(), FLAT_STRIDE)[0] == 1


@pytest.mark.parametrize("depth", range(4, 11))
def test_strong_views_of_few_slices(depth):
    np.random.seed(depth)
    torch.manual_seed(depth)
    perturb = perturbation((depth, 24, 20))
    image = torch.randn(2, depth, 24, 20)
    for _ in range(30):
        view = perturb(image=image.clone())["image"]
        assert view.isfinite().all()
        assert view.flatten(1).any(1).all()


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


@pytest.mark.parametrize("case", ["c", "never_preprocessed"])
def test_unlabelled_folder(tmp_path, case):
    save(tmp_path, "c", (0, 1))
    expected = ["c"] if case == "c" else []
    folder = tmp_path if case == "c" else tmp_path / "absent"
    assert UnlabeledDataset.get_identifiers(str(folder)) == expected
