"""One encoder for several modalities against an encoder of each, of the same weights."""

from copy import deepcopy

import pytest
import torch
from operators import Operators
from torch import nn
from torch.nn import functional as F

from nnunet_cmc.networks import build_encoder
from nnunet_cmc.networks.adapter import Adapter
from nnunet_cmc.networks.blocks import InstanceNorm, instance_norm
from nnunet_cmc.networks.sam_med3d import ChannelNorm
from nnunet_cmc.networks.sharing import OwnAdapter, OwnInstanceNorm, OwnLayerNorm, OwnModule, SharedEncoder

UNET = {"features_per_stage": [4, 8, 8], "blocks_per_stage": [2, 2, 1]}
ENCODERS = {
    "plain": ("unet", UNET),
    "residual": ("unet", UNET | {"architecture": "ResidualEncoderUNet"}),
    "universal": ("universal", {"channels": [4, 4, 8, 8], "stem": 2}),
    "vnet": ("vnet", {"width": 2, "dropout": 0.0}),
    "sam_med3d": (
        "sam_med3d",
        {
            "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "global_blocks": [0, 1],
            "window_size": 14, "out_channels": 8, "axis_order": "zyx", "adapters": True, "skip_channels": [4, 8],
        },
    ),
}  # fmt: skip
# The parts of each encoder that a modality has for itself, beside norms and adapters.
FIRST = {
    "plain": ["net.stages.0."],
    "residual": ["net.stem.", "net.stages.0."],
    "universal": ["down_tr64."],
    "vnet": ["in_tr."],
    "sam_med3d": ["vit.patch_embed.", "path.0."],
}
NORMS = (nn.InstanceNorm3d, nn.BatchNorm3d, nn.LayerNorm)


def is_own(encoder: nn.Module, name: str, key: str) -> bool:
    owners = [encoder.get_submodule(".".join(key.split(".")[:cut])) for cut in range(1, key.count(".") + 1)]
    return key.startswith(tuple(FIRST[name])) or any(isinstance(owner, (*NORMS, Adapter)) for owner in owners)


@pytest.fixture(params=ENCODERS)
def name(request):
    return request.param


@pytest.fixture
def side(name) -> int:
    """Voxels along a side, of which V-Net's batch norm needs more than one at its deepest map."""
    return 32 if name == "vnet" else 16


@pytest.fixture
def alone(name) -> list[nn.Module]:
    """Encoders of three modalities, float64, that differ in what is each one's own and in nothing else."""
    torch.manual_seed(0)
    kind, kwargs = ENCODERS[name]
    first = build_encoder(kind, **kwargs).double()
    for parameter in first.parameters():
        nn.init.normal_(parameter, std=0.2)
    encoders = [first, deepcopy(first), deepcopy(first)]
    for encoder in encoders[1:]:
        for key, parameter in encoder.named_parameters():
            if is_own(encoder, name, key):
                nn.init.normal_(parameter, std=0.2)
    return encoders


@pytest.fixture
def shared(name, alone) -> SharedEncoder:
    kind, kwargs = ENCODERS[name]
    shared = SharedEncoder(build_encoder(kind, **kwargs), 3).double()
    shared.load_state_dict(shared.spread({m: encoder.state_dict() for m, encoder in enumerate(alone)}))
    return shared


@pytest.mark.parametrize("rows", [{0: 2, 1: 1, 2: 1}, {2: 2, 0: 1}, {1: 1}])
def test_rows_of_all_modalities_give_what_each_gives_alone(name, side, shared, alone, rows):
    """Maps and gradients; the modalities' order, and which are there, do not matter."""
    parts = {m: torch.randn(n, 1, side, side, side, dtype=torch.float64) for m, n in rows.items()}
    found = shared(parts)
    expected = {m: alone[m](part) for m, part in parts.items()}
    for m in rows:
        torch.testing.assert_close(found[m], expected[m])
    for maps in (found, expected):
        sum(level.square().mean() for levels in maps.values() for level in levels).backward()
    zero = torch.zeros(())
    gradients = [
        {key: p.grad if p.grad is not None else torch.zeros_like(p) for key, p in encoder.named_parameters()}
        for encoder in alone
    ]
    for key, own in gradients[0].items():
        if not is_own(alone[0], name, key):
            whole = sum((gradient[key] for gradient in gradients), zero)
            torch.testing.assert_close(shared.get_parameter(f"encoder.{key}").grad, whole)
            continue
        for m, encoder in enumerate(gradients):
            ((where, _),) = shared.spread({m: {key: own}}).items()
            gradient = shared.get_parameter(where).grad
            torch.testing.assert_close(torch.zeros_like(own) if gradient is None else gradient, encoder[key])
            assert (gradient is None) == (m not in rows), "an absent modality costs nothing"


def test_first_stage_norms_and_adapters_are_all_that_is_a_modalitys_own(name, shared, alone):
    own = sum(p.numel() for key, p in alone[0].named_parameters() if is_own(alone[0], name, key))
    one, three = (sum(p.numel() for p in encoder.parameters()) for encoder in (alone[0], shared))
    assert three == one + 2 * own
    assert 0 < own < one


def test_at_first_all_modalities_are_alike(name):
    kind, kwargs = ENCODERS[name]
    shared = SharedEncoder(build_encoder(kind, **kwargs), 3)
    own = [module for module in shared.modules() if isinstance(module, OwnModule)]
    assert own
    for module in own:
        first, *others = (copy.state_dict() for copy in module.copies)
        assert all(other[key].equal(value) for other in others for key, value in first.items())
        assert len(set(module.parameters())) == 3 * len(list(module.copies[0].parameters()))


BY_ROW = {
    "instance norm": (InstanceNorm(4, eps=1e-3, affine=True), OwnInstanceNorm, (4, 3, 5, 2)),
    "layer norm": (nn.LayerNorm(4, eps=1e-3), OwnLayerNorm, (3, 5, 2, 4)),
    "channel norm": (ChannelNorm(4, eps=1e-3), OwnLayerNorm, (4, 3, 5, 2)),
    "adapter": (Adapter(8, reduction=2), OwnAdapter, (3, 5, 2, 8)),
}


@pytest.mark.parametrize("kind", BY_ROW)
def test_one_computation_by_row_is_that_of_each_modality(kind):
    """Output, and gradients of input and parameters."""
    module, own, shape = BY_ROW[kind]
    rows = {2: 1, 0: 3}
    together = own(module, 3, rows).double()
    for parameter in together.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, *shape, dtype=torch.float64, requires_grad=True)
    expected = torch.cat([together.copies[2](x[:1]), together.copies[0](x[1:])])
    order = [together.copies[m] for m in (2, 0, 0, 0)]
    for name, _ in module.named_parameters():
        together.chosen[name] = torch.stack([copy.get_parameter(name) for copy in order])
    torch.testing.assert_close(together(x), expected)
    leaves = [x, *together.copies[0].parameters(), *together.copies[2].parameters()]
    ours, plain = (torch.autograd.grad(y.sin().sum(), leaves) for y in (together(x), expected))
    torch.testing.assert_close(ours, plain)


def test_instance_norm_is_torchs_to_the_bit_with_an_activation_in_place_and_copies_nothing_in_the_backward_pass():
    plain, ours = nn.InstanceNorm3d(4, affine=True), InstanceNorm(4, affine=True)
    nn.init.normal_(plain.weight)
    ours.load_state_dict(plain.state_dict())
    x, counts, results = torch.randn(2, 4, 3, 5, 2), [], []
    for norm in (plain, ours):
        leaf = x.clone().requires_grad_()
        y = F.leaky_relu(norm(leaf), inplace=True)
        with Operators() as operators:
            gradients = torch.autograd.grad(y.square().sum(), [leaf, *norm.parameters()])
        counts.append(sum(name.startswith(("aten.copy_", "aten.clone")) for name in operators.names))
        results.append([y, *gradients])
    assert counts[1] == 0 < counts[0]
    for a, b in zip(*results, strict=True):
        assert a.equal(b)


def test_instance_norm_keeps_channels_last():
    norm, x = nn.InstanceNorm3d(4, affine=True), torch.randn(2, 4, 3, 5, 2)
    nn.init.normal_(norm.weight)
    leaves = [[x.clone().contiguous(memory_format=order).requires_grad_(), *norm.parameters()] for order in
              (torch.contiguous_format, torch.channels_last_3d)]  # fmt: skip
    plain, ours = norm(leaves[0][0]), instance_norm(leaves[1][0], norm.weight.repeat(2), norm.bias.repeat(2), norm.eps)
    assert ours.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad(y.sin().sum(), of) for y, of in zip((ours, plain), leaves[::-1], strict=True)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_a_copy_has_a_batch_of_its_own(shared, side):
    parts = {m: torch.randn(1, 1, side, side, side, dtype=torch.float64) for m in (0, 1)}
    expected = shared(parts)
    copy = deepcopy(shared)
    copy({2: parts[0].expand(3, -1, -1, -1, -1)})
    assert list(shared.rows) == [0, 1]
    torch.testing.assert_close(copy(parts), expected, rtol=0, atol=0)
