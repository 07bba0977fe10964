"""Readers of files from anywhere, given garbage and sound files with a part replaced: an answer, or one sentence."""

import copy
import io
import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from plans import NETWORK, make_plans

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.plans_json import planned_configuration, read_plans, require_ours
from nnunet_cmc.data.format.splits import hidden_cases, load_fold
from nnunet_cmc.dataset_conversion import table
from nnunet_cmc.dataset_conversion.label_names import number_classes, read_classes
from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.pretrained import load_pretrained
from nnunet_cmc.trainers.checks import require_supported
from nnunet_cmc.utils.checkpoints import load_checkpoint
from nnunet_cmc.utils.files import is_plain_name

KEYS = st.sampled_from(["", "0", "1", "a", "b", "..", "../x", "/", "labels", "version", "train", "val", "unlabeled"])
SCALARS = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=3) | KEYS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
DATASET_JSON = {
    "channel_names": {"0": "CT", "1": "MR"},
    "labels": {"background": 0, "a": 1, "b": 2},
    "file_ending": ".nii.gz",
    "cmc": {"version": 1, "present_channels": {"x": [0], "y": [0, 1]}, "subjects": {"x": "p"}},
    "dataset": {"x": {"images": ["x_0000.nii.gz"], "label": "x.nii.gz"}},
}
PLANS = make_plans()
PLANS["configurations"]["other"] = {"inherits_from": "3d_fullres", "batch_size": 3}
SPLITS = [{"train": ["a"], "val": ["b"], "unlabeled": ["c"]}]
fuzz = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def paths(content, before=()):
    """Of every part of a nested structure."""
    yield before
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from paths(content[key], (*before, key))


def damaged(sound, junk=JSON):
    """The sound structure with one part replaced or taken away."""

    def damage(arguments):
        path, what, remove = arguments
        if not path:
            return what
        result = copy.deepcopy(sound)
        inner = result
        for key in path[:-1]:
            inner = inner[key]
        if remove:
            del inner[path[-1]]
        else:
            inner[path[-1]] = what
        return result

    return st.tuples(st.sampled_from(list(paths(sound))), junk, st.booleans()).map(damage)


def files(sound):
    """Content of a JSON file: whole, cut short, or anything."""
    text = damaged(sound).map(lambda content: json.dumps(content).encode())
    return st.binary(max_size=30) | text | st.tuples(text, st.integers(0, 400)).map(lambda t: t[0][: t[1]])


def sentence(function, *arguments):
    """The result, or None where it is refused, which must be by one sentence."""
    try:
        return function(*arguments)
    except ValueError as error:
        said = str(error)
    assert said.endswith(".")
    assert "\n" not in said
    return None


@fuzz
@given(content=files(DATASET_JSON))
def test_dataset_json_file(tmp_path, content):
    (tmp_path / "dataset.json").write_bytes(content)
    found = sentence(DatasetDescription.read, tmp_path / "dataset.json")
    assert found is None or (found.modalities and found.labels and found.file_ending)


@fuzz
@given(content=damaged(DATASET_JSON) | JSON)
def test_what_passes_the_check_of_dataset_json_can_be_relied_on(content):
    try:
        description = DatasetDescription.from_dict(content)
    except ValueError:
        return
    for case in ("x", "y", "z"):
        channels = description.possible_channels(case)
        assert channels
        assert set(channels) <= set(range(len(content["channel_names"])))
        assert isinstance(description.subject_of(case), str)
    assert all(map(is_plain_name, [*content.get("dataset", ()), *content.get("cmc", {}).get("subjects", ())]))
    with suppress(ValueError):
        description.require_plain_labels("This")
        heads = LabelManager(content["labels"], None).num_segmentation_heads
        assert heads == len(content["labels"]) == len(description.label_values())


@fuzz
@given(content=files(SPLITS))
def test_splits(tmp_path, content):
    file = tmp_path / "splits_final.json"
    file.write_bytes(content)
    fold = sentence(load_fold, file, 0)
    assert fold is None or all(map(is_plain_name, fold.train + fold.val + fold.unlabeled))
    hidden = sentence(hidden_cases, file)
    assert hidden is None or all(map(is_plain_name, hidden))


@fuzz
@given(content=files(PLANS))
def test_plans_file(tmp_path, content):
    (tmp_path / "plans.json").write_bytes(content)
    found = sentence(read_plans, tmp_path / "plans.json")
    if found is not None:
        for configuration in found["configurations"].values():
            identifier = configuration.get("data_identifier", "x")
            assert (tmp_path / identifier).resolve().parent == tmp_path.resolve()


@fuzz
@given(plans=damaged(PLANS) | JSON, configuration=st.sampled_from(["3d_fullres", "other", "2d"]))
def test_plans_for_a_trainer(plans, configuration):
    sentence(require_supported, plans, configuration, DatasetDescription.from_dict(DATASET_JSON), "CMCTrainer")
    sentence(planned_configuration, plans, configuration)
    if chosen := sentence(require_ours, plans, configuration, "CMCTrainer"):
        assert chosen["architecture"]["network_class_name"].startswith("nnunet_cmc.networks.")
        manager = PlansManager(plans)
        planned = manager.get_configuration(configuration)
        assert planned.batch_size >= 1
        assert np.prod([*planned.patch_size, *planned.spacing]) > 0
        assert sorted(manager.transpose_forward) == [0, 1, 2]


def net():
    torch.manual_seed(0)
    return CMCNet(2, 3, **NETWORK)


CHECKPOINT = {
    "network_weights": {key: tensor for key, tensor in net().state_dict().items() if "bias" in key},
    "init_args": {"dataset_json": {"channel_names": {"0": "CT", "1": "MR"}}},
}
buffer = io.BytesIO()
torch.save(CHECKPOINT, buffer)
SAVED = buffer.getvalue()


@fuzz
@given(at=st.integers(0, len(SAVED) - 1), junk=st.binary(max_size=20), cut=st.booleans())
def test_checkpoint_file(tmp_path, at, junk, cut):
    (tmp_path / "c.pth").write_bytes(SAVED[:at] + junk + (b"" if cut else SAVED[at + len(junk) :]))
    found = sentence(load_checkpoint, tmp_path / "c.pth")
    assert found is None or isinstance(found, dict)


TENSORS = st.sampled_from([torch.zeros(2), torch.zeros(3, 1, 4, 4, 4), torch.tensor(1)])
FOREIGN = {"model_state_dict": {"image_encoder.patch_embed.proj.weight": torch.zeros(8, 1, 4, 4, 4), "pos_embed": 0}}


@fuzz
@given(checkpoint=damaged(CHECKPOINT, JSON | TENSORS) | damaged(FOREIGN, JSON | TENSORS))
def test_what_a_checkpoint_holds(checkpoint):
    if isinstance(checkpoint, dict):
        sentence(load_pretrained, net(), checkpoint, "c.pth", ["CT", "MR"])


CELLS = st.sampled_from(["subject", "modality", "image", "label", "part", "train", "x", "../x", ",", "\n", '"', "\0"])


@fuzz
@given(text=st.lists(CELLS, max_size=25).map(",".join).map(str.encode) | st.binary(max_size=40))
def test_table(tmp_path, text):
    (tmp_path / "table.csv").write_bytes(text)
    rows = sentence(table._read, tmp_path / "table.csv")
    assert rows is None or all(row.subject and row.modality for row in rows)


@pytest.mark.parametrize("ending", ["json", "txt"])
def test_classes(tmp_path, ending):
    file = tmp_path / f"classes.{ending}"
    lines = st.lists(st.sampled_from(['1 255 0 0 1 1 1 "a"', "#", '0 0 0 0 0 0 0 "b"', "x", '1 1 "']), max_size=4)
    text = lines.map("\n".join).map(str.encode) | files({"labels": {"a": 1, "b": 2}}) | files({"1": "a", "2": "b"})

    @fuzz
    @given(content=text)
    def check(content):
        file.write_bytes(content)
        classes = sentence(read_classes, file)
        if classes is not None:
            sentence(number_classes, classes, ["CT"])

    check()
