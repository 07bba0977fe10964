"""Files from anywhere: read without executing anything, or refused in one sentence that names them."""

import argparse
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from evil import Evil

from nnunet_cmc.utils.checkpoints import load_checkpoint


def assert_refused(path, message):
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_tensors_values_and_a_namespace_are_read(tmp_path):
    path = tmp_path / "good.pth"
    torch.save({"state": {"a": torch.ones(2)}, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, path)
    checkpoint = load_checkpoint(path)
    assert torch.equal(checkpoint["state"]["a"], torch.ones(2))
    assert checkpoint["epoch"] == 3
    assert checkpoint["args"].lr == 0.1


@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), np.int64(3), np.bool_(True)])
@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_numbers_of_any_numpy_are_read(tmp_path, number, module):
    new, path = tmp_path / "new.pth", tmp_path / "renamed.pth"
    torch.save({"dice": [number]}, new)
    with zipfile.ZipFile(new) as old, zipfile.ZipFile(path, "w") as renamed:
        for name in old.namelist():
            content = re.sub(rb"numpy\._?core(?=\.multiarray\nscalar)", module, old.read(name))
            assert not name.endswith("data.pkl") or module in content
            renamed.writestr(name, content)
    assert load_checkpoint(path) == {"dice": [number]}


def test_numpy_arrays_of_objects_are_refused(tmp_path):
    path = tmp_path / "objects.pth"
    torch.save({"a": np.array([Evil(tmp_path / "executed")], dtype=object)}, path)
    assert_refused(path, "a Python object .* beside tensors")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("save", ["zip", "legacy", "bare pickle"])
def test_a_malicious_file_is_never_executed(tmp_path, save):
    path, marker = tmp_path / "evil.pth", tmp_path / "executed"
    if save == "bare pickle":
        path.write_bytes(pickle.dumps({"args": Evil(marker)}, protocol=2))
    else:
        content = {"model_state_dict": {"a": torch.ones(2)}, "args": Evil(marker)}
        torch.save(content, path, _use_new_zipfile_serialization=save == "zip")
    assert_refused(path, r"a Python object \((posix|nt)\.mkdir\) beside tensors")
    assert not marker.exists()


def test_a_truncated_file_is_refused(tmp_path):
    whole, path = tmp_path / "whole.pth", tmp_path / "truncated.pth"
    torch.save({"a": torch.ones(1000)}, whole)
    path.write_bytes(whole.read_bytes()[:2000])
    assert_refused(path, "something else or truncated")


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_another_kind_of_file_is_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    assert_refused(path, "something else or truncated")


def test_something_other_than_a_dict_is_refused(tmp_path):
    path = tmp_path / "list.pth"
    torch.save([torch.ones(2)], path)
    assert_refused(path, "holds a list where a checkpoint is a dict")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint file .*absent\.pth"):
        load_checkpoint(tmp_path / "absent.pth")
