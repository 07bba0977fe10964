"""nnU-Net's predictor for a model of ours, with checks of its input files and of the network's logits."""

import inspect
from collections.abc import Callable, Sequence
from os.path import join
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor
from torch._dynamo import OptimizedModule
from tqdm import tqdm

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.scan_folder import case_of, cases_to_read, require_one_case
from nnunet_cmc.data.reading.raw_case import shown_channels
from nnunet_cmc.inference.windows import WindowPredictor
from nnunet_cmc.utils.devices import require_device

NOT_FINITE = (
    "the network's logits are NaN, or beyond the range of float16: take another checkpoint, or train again at a lower "
    "learning rate."
)


class LogitsError(ValueError):
    """The network's logits are not finite: argmax would return the background."""


class CheckedPredictor(WindowPredictor):
    """Predict as nnU-Net's predictor does, but refuse files that it would ignore, and logits that are not finite.

    The hook makes nnU-Net's own predictor one of these as soon as it has a model of ours. The preprocessor cannot check
    the files: nnU-Net never gives it those that it ignores, nor calls it for an empty folder.
    """

    checkpoints: Sequence[str] = ()  # files of the weights, as far as they are known
    cases: Sequence[str] = ()  # names of those that are not predicted yet, in order, as far as they are known

    def _manage_input_and_output_lists(self, list_of_lists_or_source_folder, *args, **kwargs):
        """List the cases. ValueError: a file has no number, or a folder no file, which nnU-Net reports as success."""
        files, description = list_of_lists_or_source_folder, DatasetDescription.from_dict(self.dataset_json)
        if isinstance(files, str):
            files = list(cases_to_read(files, description).values())
        for of_case in files:
            require_one_case(of_case, description.file_ending)
        lists, outputs, previous = super()._manage_input_and_output_lists(files, *args, **kwargs)
        self.cases = [case_of(files[0], description.file_ending) for files in lists]
        return lists, outputs, previous

    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """Predict a case, and print which modalities it shows. LogitsError, with case and checkpoint, if not finite."""
        case, self.cases = (self.cases[0], self.cases[1:]) if self.cases else (None, ())
        if case:
            names = DatasetDescription.from_dict(self.dataset_json).modalities
            tqdm.write(f"Case {case} is predicted from {', '.join(names[c] for c in shown_channels(data))}.")
        threads = torch.get_num_threads()
        try:
            return super().predict_logits_from_preprocessed_data(data)
        except LogitsError as error:
            self.cases = ()
            raise self.refusal(case) from error
        finally:
            torch.set_num_threads(threads)  # nnU-Net does so after a case that has not failed

    def refusal(self, case: str | None) -> LogitsError:
        """Make the error for a case whose logits are not finite; it names the files of weights that are not, or all."""
        files = zip(self.checkpoints, self.list_of_parameters, strict=False)
        broken = [file for file, weights in files if not all(map(all_finite, weights.values()))]
        what = ", ".join(broken or self.checkpoints) or "the model"
        return LogitsError(f"{f'Case {case}' if case else 'The case'}, predicted with {what}: {NOT_FINITE}")

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(self, data: Tensor, slicers: list, do_on_device: bool = True):
        logits = super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)
        if not all_finite(logits):
            raise LogitsError(NOT_FINITE)
        return logits


def all_finite(tensor: Tensor) -> bool:
    """Tell whether no value is NaN or infinite."""
    return bool(tensor.isfinite().all())


def check(predictor: nnUNetPredictor, initialize: Callable, *args: Any, **kwargs: Any) -> None:
    """Make ``predictor`` a :class:`CheckedPredictor` after ``initialize``, with compiled parts if nnU-Net compiles.

    Raises:
        ValueError: there is no such device.
    """
    require_device(predictor.device)
    if isinstance(predictor.network, OptimizedModule):  # nnUNet_compile=1: nnU-Net compiles the network as a whole
        predictor.network = predictor.network._orig_mod
        predictor.network.compile_parts()
    if type(predictor) is not nnUNetPredictor:
        return
    predictor.__class__ = CheckedPredictor
    call = inspect.signature(initialize).bind(predictor, *args, **kwargs)
    call.apply_defaults()
    if folder := call.arguments.get("model_training_output_dir"):
        folds, name = call.arguments["use_folds"], call.arguments["checkpoint_name"]
        folds = predictor.auto_detect_available_folds(folder, name) if folds is None else folds
        folds = [folds] if isinstance(folds, str) else folds
        predictor.checkpoints = [join(folder, f"fold_{fold}", name) for fold in folds]
