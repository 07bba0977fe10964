"""Evidential heads and their combination, against belief functions that are written out set by set."""

from collections.abc import Callable
from itertools import chain, combinations, product
from math import exp

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import Evidential, PredictAlone, SeparateModalities, SuperviseDeep
from nnunet_cmc.networks.combination import Discounting
from nnunet_cmc.networks.evidence import EvidentialHead
from nnunet_cmc.networks.pretrained import load_pretrained

K = 3
OMEGA = frozenset(range(K))
SETS = [frozenset(s) for s in chain.from_iterable(combinations(range(K), n) for n in range(K + 1))]
Mass = dict[frozenset, float]
NETWORKS = {
    "unet": {"encoder_kwargs": {"features_per_stage": [4, 8, 8], "blocks_per_stage": [1, 1, 1]}},
    "universal": {"encoder_kwargs": {"channels": [4, 4, 8, 8], "stem": 2}, "decoder_channels": [4, 4, 8]},
}


def combined(a: Mass, b: Mass, rule: Callable[[frozenset, frozenset], frozenset]) -> Mass:
    found = dict.fromkeys(SETS, 0.0)
    for s, t in product(a, b):
        found[rule(s, t)] += a[s] * b[t]
    return found


def dempster(a: Mass, b: Mass) -> Mass:
    """Combine two masses, and divide by what does not contradict itself."""
    found = combined(a, b, frozenset.intersection)
    conflict = found.pop(frozenset())
    return {s: mass / (1 - conflict) for s, mass in found.items()}


def discounted(mass: Mass, beta: np.ndarray) -> Mass:
    """Discount a mass by its reliability for each class: it is united with {k} to the degree that it is unreliable."""
    for k in range(K):
        mass = combined(mass, {frozenset(): beta[k], frozenset([k]): 1 - beta[k]}, frozenset.union)
    return mass


def plausibility(mass: Mass) -> np.ndarray:
    return np.array([sum(m for s, m in mass.items() if k in s) for k in range(K)])


def mass_of(head: EvidentialHead, f: np.ndarray) -> Mass:
    """What the prototypes of a head say together about a voxel of features f."""
    total: Mass = {OMEGA: 1.0}
    weights = (head.prototypes, head.memberships, head.supports, head.widths)
    for pi, logits, xi, eta in zip(*(weight.detach().numpy() for weight in weights), strict=True):
        u = np.exp(logits) / np.exp(logits).sum()
        s = 1 / (1 + exp(-xi)) * exp(-(eta**2) * ((f - pi) ** 2).sum())
        total = dempster(total, {**{frozenset([k]): u[k] * s for k in range(K)}, OMEGA: 1 - s})
    return total


def random_head(prototypes: int = 4) -> EvidentialHead:
    head = EvidentialHead(K, prototypes).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


@pytest.mark.parametrize("seed", range(3))
def test_evidence_discounting_and_combination_are_those_of_belief_functions(seed):
    torch.manual_seed(seed)
    heads, features = [random_head(), random_head(5)], torch.randn(2, 1, K, 2, 1, 2).double()
    discounting = Discounting(2, K).double()
    torch.nn.init.normal_(discounting.reliability)
    logs = [head(f) for head, f in zip(heads, features, strict=True)]
    together = discounting(torch.stack(logs, 1), torch.ones(1, 2, dtype=torch.bool)).softmax(1)
    beta = discounting.reliability.sigmoid().detach().numpy()
    for where in product((0,), range(2), (0,), range(2)):
        voxel = (where[0], slice(None), *where[1:])
        masses = [mass_of(head, f[voxel].numpy()) for head, f in zip(heads, features, strict=True)]
        for log, mass in zip(logs, masses, strict=True):
            np.testing.assert_allclose(log[voxel].exp().detach(), plausibility(mass), rtol=1e-9)
        fused = plausibility(combined(*map(discounted, masses, beta), frozenset.intersection))
        np.testing.assert_allclose(together[voxel].detach(), fused / fused.sum(), rtol=1e-9)


def test_gradients_of_head_and_combination():
    torch.manual_seed(0)
    head, discounting = random_head(), Discounting(2, K).double()
    features = torch.randn(2, K, 2, 1, 1).double().requires_grad_()
    present = torch.ones(1, 2, dtype=torch.bool)
    torch.autograd.gradcheck(
        lambda f, *_: discounting(head(f)[None], present), (features, *head.parameters(), discounting.reliability)
    )


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("distance", [0.0, 1.0, 1e4])
def test_certainty_and_distance_are_finite(certain, distance):
    """Masses of exactly 0 and 1 in float32; far from every prototype nothing is known."""
    torch.manual_seed(0)
    head, discounting = EvidentialHead(K, 20), Discounting(2, K)
    if certain:
        for parameter in (head.supports, head.memberships, discounting.reliability):
            parameter.data.mul_(100).add_(50)
        head.memberships.data[:, 0] += 200
    features = (head.prototypes[:2, :, None, None, None].detach() + distance).requires_grad_()
    logs = head(features)
    fused = discounting(logs[None], torch.ones(1, 2, dtype=torch.bool))
    assert logs.isfinite().all()
    assert fused.isfinite().all()
    assert (logs <= 1e-6).all(), "plausibilities are no more than 1"
    assert (distance < 1e4) or not logs.any()
    (logs.sum() + fused.square().sum()).backward()
    for tensor in (features, *head.parameters(), discounting.reliability):
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_the_features_alone(half):
    torch.manual_seed(0)
    head, discounting = EvidentialHead(K, 5), Discounting(1, K)
    features, present = torch.randn(2, K, 2, 2, 2).to(half), torch.ones(2, 1, dtype=torch.bool)
    expected = head(features.float())
    with torch.autocast("cpu", half):
        found = head(features)
        fused = discounting(found[:, None], present)
    assert found.equal(expected)
    assert fused.equal(discounting(expected[:, None], present))
    assert fused.dtype == torch.float32


def test_memory_does_not_grow_with_the_number_of_prototypes():
    """As counted in maps of the size of the features."""
    kept = []
    features = torch.randn(1, K, 16, 16, 16, requires_grad=True)
    for prototypes in (2, 20):
        total = {}
        with saved_tensors_hooks(lambda t, total=total: total.update({id(t): t.nbytes}) or t, lambda t: t):
            EvidentialHead(K, prototypes)(features)
        kept.append(sum(total.values()) / features.nbytes)
    assert kept[1] < kept[0] + 1
    assert kept[1] < 10


def test_what_is_absent_does_not_count():
    torch.manual_seed(0)
    discounting, logs = Discounting(3, K), torch.randn(3, 3, K, 2, 2, 2).sigmoid().log()
    torch.nn.init.normal_(discounting.reliability)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    found = discounting(logs, present)
    beta = discounting.reliability.sigmoid()[..., None, None, None]
    for b, there in enumerate(present):
        expected = (1 - beta + beta * logs[b].exp())[there].prod(0).log()
        torch.testing.assert_close(found[b], expected)
    found[2].sum().backward()
    assert discounting.reliability.grad.any(1).tolist() == [False, True, False]


# ---- in the network


def build(encoder: str = "unet", evidential: bool = True, alone: tuple = (SeparateModalities(), PredictAlone())):
    torch.manual_seed(0)
    network = CMCNet(2, K, [16, 16, 16], encoder, **NETWORKS[encoder])
    for change in (*alone, SuperviseDeep(), *([Evidential(5)] if evidential else [])):
        change(network)
    return network


def scan() -> torch.Tensor:
    return torch.randn(3, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def alone(x: torch.Tensor) -> torch.Tensor:
    return torch.eye(x.shape[1], dtype=torch.bool).expand(len(x), -1, -1)


def head_of(network: CMCNet, m: int) -> EvidentialHead:
    (head,) = (part for part in network.decoders[m].modules() if isinstance(part, EvidentialHead))
    return head


@pytest.mark.parametrize("encoder", NETWORKS)
def test_a_networks_finest_prediction_alone_is_evidence(encoder):
    plain, network, x = build(encoder, evidential=False), build(encoder), scan()
    before, found = plain(x, alone(x)), network(x, alone(x))
    for m in range(2):
        torch.testing.assert_close(found.logits[:, m], head_of(network, m)(before.logits[:, m]))
    assert len(found.deep) == len(before.deep) > 0
    for coarse, same in zip(found.deep, before.deep, strict=True):
        torch.testing.assert_close(coarse, same)


@pytest.mark.parametrize("decoders", [1, 2])
def test_every_subset_predicts_by_the_evidence_of_its_own(decoders):
    network = build(alone=(SeparateModalities(), PredictAlone()) if decoders == 2 else (PredictAlone(),)).eval()
    assert len(network.decoders) == decoders
    x = scan()
    x[1, 0] = x[2, 1] = 0
    torch.nn.init.normal_(network.combination.reliability)
    with torch.no_grad():
        output, together = network(x, alone(x)), network(x)
        beta = network.combination.reliability.sigmoid()[..., None, None, None]
    expected = (1 - beta + beta * output.logits.exp()).log() * output.present[..., None, None, None, None]
    torch.testing.assert_close(together, expected.sum(1))
    assert together.equal(output.auxiliary["combined"][0]), "what trains is what predicts"
    torch.testing.assert_close(together[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)


def test_a_prediction_that_is_not_asked_for_is_not_combined():
    network, x = build().eval(), scan()
    fusion = alone(x).clone()
    fusion[:, 1] = False
    with torch.no_grad():
        (together,) = network(x, fusion).auxiliary["combined"]
        x[:, 1] = 0
        assert together.equal(network(x))


def test_every_weight_learns_from_the_combination_and_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        network, x = build(), scan()
        network.execution.checkpointing = checkpointing
        (together,) = network(x, alone(x)).auxiliary["combined"]
        together.log_softmax(1)[:, 0].mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    idle = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert all(name.endswith("bias") or ".seg_layers.0" in name for name in idle), idle  # before norms; coarser ones
    assert "combination.reliability" in gradients[0]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_weights_of_a_network_without_evidence_fit():
    """All but the last layers, which depend on what is predicted."""
    plain, network = build(evidential=False), build()
    for parameter in plain.parameters():
        parameter.data.add_(1)
    dataset = {"channel_names": {"0": "CT", "1": "MR"}}
    checkpoint = {"network_weights": plain.state_dict(), "init_args": {"dataset_json": dataset}}
    load_pretrained(network, checkpoint, "plain.pth", ["CT", "MR"])
    fitted = plain.state_dict()
    other = {key for key, value in network.state_dict().items() if key not in fitted or not value.equal(fitted[key])}
    assert other, "the evidence is at its start"
    assert all(".seg_layers." in key or "combin" in key or key == "pretrained" for key in other), other


def test_fused_modalities_are_no_evidence_of_single_ones():
    with pytest.raises(ValueError, match="this network fuses them: put PredictAlone before Evidential"):
        build(alone=())
