"""Class activation of the fused features: HiResCAM (Draelos and Carin 2020) of a segmentation.

The score is summed over the voxels predicted as the classes asked for, as Seg-Grad-CAM does (Vinogradova et al., AAAI
2020). Grad-CAM's mean of the gradient over space would tell channels apart but not places: a class that fills a tenth
of the tile then lights up far from where it is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cmc.networks.cmcnet import CMCNet


def fused_activation(network: CMCNet, x: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute the class activation of the fused features F, and the prediction from them.

    The score S is the sum, over the voxels predicted as one of ``classes`` and the predictions that are combined, of
    the logit of that class minus the mean logit of all classes. The activation is ``relu(sum_c F_c dS/dF_c)``,
    interpolated to the size of ``x``: zero if none of the classes is predicted.

    Args:
        network: in evaluation mode.
        x: ``(1, M, D, H, W)``; a channel of zeros is absent.
        classes: numbers of the foreground classes that are asked for.

    Returns:
        Activation ``(D, H, W)``, >= 0, and the logits ``(K, D, H, W)``.
    """
    fused: list[Tensor] = []

    def restart_graph(module, inputs, output: Tensor) -> Tensor:
        fused.append(output.detach().requires_grad_())
        return fused[0]

    hook = network.mia.register_forward_hook(restart_graph)
    try:
        with torch.enable_grad():
            output = network.predictions(x)
    finally:
        hook.remove()
    with torch.no_grad():
        combined = network.combine(output.logits, output.present)[0]
    predicted = combined.argmax(0)
    wanted = torch.isin(predicted, predicted.new_tensor(classes))
    if not fused or not wanted.any():
        return torch.zeros_like(combined[0]), combined
    own = output.logits[0]  # (M, K, D, H, W); zeros, which are no prediction, add nothing to the score
    centred = own - own.mean(1, keepdim=True)  # a logit common to all classes changes no prediction
    score = centred.gather(1, predicted.expand(len(own), 1, -1, -1, -1))[:, 0, wanted].sum()
    (gradient,) = torch.autograd.grad(score, fused[0])
    activation = (gradient * fused[0].detach()).sum((0, 1), keepdim=True).relu()
    return F.interpolate(activation, x.shape[2:], mode="trilinear")[0, 0], combined
