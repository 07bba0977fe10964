import gc
import json

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_cmc.inference import windows
from nnunet_cmc.inference.checked_predictor import CheckedPredictor
from nnunet_cmc.inference.trained_model import TrainedModel
from nnunet_cmc.inference.windows import WINDOWS_PER_BATCH
from nnunet_cmc.networks import CMCNet


class StockPredictor(nnUNetPredictor):
    """nnU-Net's own predictor: the hook makes of that class one of ours, and leaves others alone."""


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("absent", [None, 0])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_logits_are_those_of_nnunet_however_many_windows_go_at_once(tiny, monkeypatch, at_once, absent, gaussian):
    monkeypatch.setattr(windows, "WINDOWS_PER_BATCH", at_once)
    trained = TrainedModel(tiny.model, None, "checkpoint_final.pth")
    manager = PlansManager(trained.plans)
    dataset_json = json.loads((tiny.preprocessed / "dataset.json").read_text())
    case = torch.randn(2, 20, 30, 18)
    if absent is not None:
        case[absent] = 0
    found = []
    for predictor in (StockPredictor, CheckedPredictor):
        made = predictor(use_gaussian=gaussian, device=torch.device("cpu"), allow_tqdm=False)
        made.manual_initialization(
            trained.network, manager, manager.get_configuration("3d_fullres"), trained.weights, dataset_json,
            "CMCTrainer", (2,),
        )  # fmt: skip
        assert type(made) is predictor
        found.append(made.predict_logits_from_preprocessed_data(case))
    assert found[1].dtype == found[0].dtype
    torch.testing.assert_close(found[1], found[0], atol=5e-3, rtol=5e-3)  # both are float16


def test_nothing_of_a_prediction_that_ran_out_of_memory_stays_while_nnunet_tries_again(tiny, monkeypatch):
    made = CheckedPredictor(device=torch.device("cpu"), allow_tqdm=False)
    made.initialize_from_trained_model_folder(str(tiny.model), ["0"])
    made.perform_everything_on_device = True  # as on a GPU
    predict, calls, alive = made._internal_maybe_mirror_and_predict, [], []

    def out_of_memory_once(x):
        calls.append(x.shape)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        halves = (each for each in gc.get_objects() if type(each) is torch.Tensor and each.dtype == torch.half)
        alive.append(sum(tuple(each.shape) == (2, 20, 30, 18) for each in halves))
        return predict(x)

    monkeypatch.setattr(made, "_internal_maybe_mirror_and_predict", out_of_memory_once)
    made.predict_sliding_window_return_logits(torch.randn(2, 20, 30, 18))
    assert len(calls) > 3
    assert set(alive) == {1}, "the result that is being made"


def test_compiling_is_of_encoders_and_decoders(tiny, monkeypatch):
    """``nnUNet_compile=1``: the network as a whole has no graph, since presence decides what is computed."""
    case, found, compiled = torch.randn(2, 20, 30, 18), [], []
    compile_ = torch.nn.Module.compile

    def without_backend(self, **arguments):
        compiled.append(self)
        compile_(self, backend="eager", **arguments)

    monkeypatch.setattr(torch.nn.Module, "compile", without_backend)
    for value in ("0", "1"):
        monkeypatch.setenv("nnUNet_compile", value)
        made = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        made.initialize_from_trained_model_folder(str(tiny.model), ["0"])
        assert isinstance(made.network, CMCNet)
        assert len(compiled) == 2 * int(value), "encoder and decoder, if asked for"
        found.append(made.predict_logits_from_preprocessed_data(case))
    torch.testing.assert_close(found[1], found[0], atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e4])
def test_logits_that_float16_does_not_hold(tiny, monkeypatch, number):
    predictor = TrainedModel(tiny.model, None, "checkpoint_final.pth").predictor(device=torch.device("cpu"))
    full = lambda windows: torch.full((len(windows), 2, 16, 16, 16), number)  # noqa: E731
    monkeypatch.setattr(predictor, "_internal_maybe_mirror_and_predict", full)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)  # more than nnU-Net uses in the meantime
    try:
        with pytest.raises(ValueError, match=r"The case, predicted with .*checkpoint_final\.pth: the network's logits"):
            predictor.predict_logits_from_preprocessed_data(torch.ones(2, 16, 16, 16))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_what_nnunet_crops_is_no_window(tiny, tmp_path):
    """Zeros around a case make it no dearer: nnU-Net's cropping leaves them out, and what is there is background."""
    made = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    made.initialize_from_trained_model_folder(str(tiny.model), ["0"])
    windows = []
    made.network.register_forward_pre_hook(lambda _, inputs: windows.append(inputs[0].clone()))
    found = []
    for margin in (0, 40):  # the patch is 16
        files = [str(tmp_path / f"case{margin}_{channel:04d}.nii.gz") for channel in (0, 1)]
        for channel, file in enumerate(files):
            scan = SimpleITK.ReadImage(str(tiny.new / f"both_{channel:04d}.nii.gz"))
            SimpleITK.WriteImage(SimpleITK.ConstantPad(scan, [margin] * 3, [margin] * 3, 0), file)
        windows.clear()
        made.predict_from_files_sequential([files], [str(tmp_path / f"labels{margin}")])
        found.append((torch.cat(windows), SimpleITK.ReadImage(str(tmp_path / f"labels{margin}.nii.gz"))))
        assert max(map(len, windows)) == WINDOWS_PER_BATCH, "the stock command gives several at once, too"
    (seen, labels), (seen_padded, padded) = found
    torch.testing.assert_close(seen_padded, seen, atol=1e-4, rtol=1e-4)  # sums in another order
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ConstantPad(labels, [40] * 3, [40] * 3, 0))
    assert labels.any()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(padded), labels)
