"""Class activation of a whole case, tile by tile as nnU-Net predicts it, on the grid of its scans."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from nnunet_cmc.data.format.scan_folder import case_of
from nnunet_cmc.inference.checked_predictor import CheckedPredictor, all_finite
from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.fused_activation import fused_activation

FULL = 100  # the largest activation of a case in its file


def explain_case(
    predictor: CheckedPredictor, files: Sequence[str], classes: Sequence[int], output: Mapping[str, str | PathLike]
) -> None:
    """Write the activation of one case in percent of its largest value, and its label map, averaged over the folds.

    Args:
        files: the channel files of the case.
        classes: numbers of the foreground classes that are asked for.
        output: files to write: ``activation`` and ``prediction``.

    Raises:
        ValueError: the model's network has no fused features, or its logits are NaN or infinite; or see
            :meth:`CMCPreprocessor.run_case`.
    """
    network, plans, configuration = predictor.network, predictor.plans_manager, predictor.configuration_manager
    if not isinstance(network, CMCNet):
        raise ValueError(
            f"The network of {predictor.trainer_name} ({type(network).__name__}) fuses no features: name a model of a "
            "trainer of this package with -tr."
        )
    network.requires_grad_(False).eval().to(predictor.device)
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case(list(files), None, plans, configuration, predictor.dataset_json)
    parts = []
    for weights in predictor.list_of_parameters:  # of each fold
        network.load_state_dict(weights)
        parts.append(_whole_case(predictor, torch.from_numpy(data), classes))
    activation, logits = (torch.stack(own).mean(0) for own in zip(*parts, strict=True))
    if not all_finite(logits):
        raise predictor.refusal(case_of(str(files[0]), predictor.dataset_json["file_ending"]))
    labels = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, predictor.label_manager, properties
    )
    own = _on_input_grid(activation, plans, configuration, properties).clip(0)
    percent = np.rint(FULL * own / max(own.max(), np.finfo(np.float32).tiny)).astype(np.uint8)
    writer = plans.image_reader_writer_class()
    for name, volume in (("activation", percent), ("prediction", labels)):
        Path(output[name]).parent.mkdir(parents=True, exist_ok=True)
        writer.write_seg(volume, str(output[name]), properties)


def _whole_case(
    predictor: CheckedPredictor, data: torch.Tensor, classes: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute activation ``(D, H, W)`` and logits ``(K, D, H, W)`` of preprocessed ``data (M, D, H, W)``."""
    patch = tuple(predictor.configuration_manager.patch_size)
    padded, inside = pad_nd_image(data, patch, "constant", {"value": 0}, True)
    starts = compute_steps_for_sliding_window(padded.shape[1:], patch, predictor.tile_step_size)
    gaussian = compute_gaussian(patch, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu"))
    activation, weight = torch.zeros(padded.shape[1:]), torch.zeros(padded.shape[1:])
    logits = torch.zeros(predictor.label_manager.num_segmentation_heads, *padded.shape[1:])
    for start in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3):
        tile = tuple(slice(low, low + side) for low, side in zip(start.tolist(), patch, strict=True))
        shown = padded[(slice(None), *tile)][None].to(predictor.device)
        parts = fused_activation(predictor.network, shown, classes)
        activation[tile] += gaussian * parts[0].float().cpu()
        logits[(slice(None), *tile)] += gaussian * parts[1].float().cpu()
        weight[tile] += gaussian
    return (activation / weight)[inside[1:]], (logits / weight)[(slice(None), *inside[1:])]


def _on_input_grid(volume: torch.Tensor, plans, configuration, properties: dict) -> np.ndarray:
    """Resample and pad a preprocessed volume to the reader's array of the input, as nnU-Net exports labels."""
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    resampled = configuration.resampling_fn_probabilities(volume[None], shape, configuration.spacing, spacing)
    whole = np.zeros(properties["shape_before_cropping"], np.float32)
    whole = insert_crop_into_image(whole, np.asarray(resampled[0]), properties["bbox_used_for_cropping"])
    return whole.transpose(plans.transpose_backward)
