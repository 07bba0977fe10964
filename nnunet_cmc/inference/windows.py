"""nnU-Net's sliding window inference with batches of several windows."""

import traceback

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import empty_cache
from torch import Tensor
from tqdm import trange

from nnunet_cmc.utils.allocator import keep_freed_memory

WINDOWS_PER_BATCH = 2  # on a CPU a batch of two costs about what one window alone does


class WindowPredictor(nnUNetPredictor):
    """Predict as nnU-Net's predictor does; memory is that of the result and of :data:`WINDOWS_PER_BATCH` windows."""

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(self, data: Tensor, slicers: list, do_on_device: bool = True):
        """Compute logits ``(K, D, H, W)`` float16 of ``data (M, D, H, W)``, blended as nnU-Net does."""
        try:
            return self._blend(data, slicers, self.device if do_on_device else torch.device("cpu"))
        except Exception as error:  # nnU-Net tries again with the result on the CPU
            traceback.clear_frames(error.__traceback__)  # of what would stay on the GPU meanwhile
            empty_cache(self.device)
            raise

    def _blend(self, data: Tensor, slicers: list, device: torch.device) -> Tensor:
        """Compute the logits on ``device``, and the predictions of windows on the predictor's."""
        if self.device.type == "cpu":
            keep_freed_memory()
        data = data.to(device)
        logits = data.new_zeros((self.label_manager.num_segmentation_heads, *data.shape[1:]), dtype=torch.half)
        total = data.new_zeros(data.shape[1:], dtype=torch.half)
        patch_size = tuple(self.configuration_manager.patch_size)
        weight: Tensor | int = 1
        if self.use_gaussian:
            weight = compute_gaussian(patch_size, sigma_scale=1 / 8, value_scaling_factor=10, device=device)
        for start in trange(0, len(slicers), WINDOWS_PER_BATCH, disable=not self.allow_tqdm):
            boxes = slicers[start : start + WINDOWS_PER_BATCH]
            windows = torch.stack([data[box] for box in boxes]).to(self.device)
            for box, predicted in zip(boxes, self._internal_maybe_mirror_and_predict(windows), strict=True):
                logits[box] += predicted.to(device) * weight
                total[box[1:]] += weight
        logits /= total
        return logits
