import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms import Distillation, Setting

T = 2.0


def output_of(present: list[list[bool]], seed: int = 0) -> CMCOutput:
    rows, modalities = len(present), len(present[0])
    logits = 4 * torch.randn(rows, modalities, 3, 2, 3, 2, generator=torch.Generator().manual_seed(seed))
    return CMCOutput(logits.requires_grad_(), torch.zeros(rows, modalities, 1, 1, 1, 1), torch.tensor(present))


def run(output: CMCOutput, target: torch.Tensor) -> torch.Tensor:
    modalities = output.present.shape[1]
    fusion = torch.eye(modalities, dtype=torch.bool) & output.present[:, None] & output.present[:, :, None]
    batch = Batch(torch.zeros(len(fusion)), target, fusion, torch.zeros(0), torch.zeros(0))
    return Distillation(Setting(modalities, num_classes=3, num_channels=1, batch_dice=True))(output, batch)


def expected_of(output: CMCOutput, target: np.ndarray) -> float:
    """In loops over voxels; 0 where there is nothing to compare."""
    logits, present = output.logits.detach().numpy(), output.present.numpy()
    profiles: dict[tuple[int, int], list] = {}
    for row, m in np.ndindex(len(target), logits.shape[1]):
        if present[row, m]:
            for voxel in np.ndindex(logits.shape[3:]):
                k = int(target[(row, m if target.shape[1] > 1 else 0, *voxel)])
                profiles.setdefault((m, k), []).append(logits[(row, m, slice(None), *voxel)])
    p = {key: softmax(np.mean(values, 0) / T) for key, values in profiles.items()}
    pairs = []
    for a in range(logits.shape[1]):
        for b in range(a + 1, logits.shape[1]):
            classes = [k for k in range(3) if (a, k) in p and (b, k) in p]
            terms = [(rel_entr(p[a, k], p[b, k]).sum() + rel_entr(p[b, k], p[a, k]).sum()) / 2 for k in classes]
            if terms:
                pairs.append(np.mean(terms))
    return np.mean(pairs) if pairs else 0.0


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=4),
    st.sampled_from([(1,), (0, 2), (0, 1, 2)]),
    st.booleans(),
    st.integers(0, 100),
)
def test_matches_loops_over_voxels_of_the_labelled_rows(present, labels, of_each, seed):
    output = output_of(present, seed)
    shape = (len(present) - 1, 3 if of_each else 1, 2, 3, 2)
    target = np.random.default_rng(seed).choice(labels, shape)
    value = run(output, torch.from_numpy(target).short())
    assert value.item() == pytest.approx(expected_of(output, target), rel=1e-4, abs=1e-7)
    (gradient,) = torch.autograd.grad(value, output.logits)
    assert not gradient[-1].any(), "unlabelled rows have no part"


def test_unpaired_scans_of_both_modalities_learn_and_what_is_alike_is_zero():
    output = output_of([[True, False], [False, True]])
    target = torch.arange(12).reshape(1, 1, 2, 3, 2).expand(2, -1, -1, -1, -1) % 3
    (gradient,) = torch.autograd.grad(run(output, target), output.logits)
    assert gradient[0, 0].any()
    assert gradient[1, 1].any()
    same = output.logits.detach()
    same[1, 1] = same[0, 0]
    assert run(output._replace(logits=same), target).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("present", [[[True, False]] * 2, [[True, False], [False, True]]])
def test_an_exact_zero_with_a_graph_without_a_class_in_common(present):
    output = output_of(present)
    target = torch.stack([torch.full((1, 2, 3, 2), k) for k in (1, 2)])
    value = run(output, target)
    value.backward()
    assert value == 0
    assert not output.logits.grad.any()


def test_half_precision_is_compared_in_float32():
    output = output_of([[True, True]])
    target = torch.arange(12).reshape(1, 1, 2, 3, 2) % 3
    half = output._replace(logits=output.logits.detach().bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        found = run(half, target)
    assert found.dtype == torch.float32
    assert found.equal(run(half._replace(logits=half.logits.float()), target))
