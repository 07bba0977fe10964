import pytest
import torch
from cac_inputs import call, make, one_hot, random_probabilities
from references import cac_paired


@pytest.mark.parametrize("form", ["paired", "unpaired"])
def test_one_sided_teaches_the_less_certain_prediction_only(form):
    certain, vague = random_probabilities(0, (2, 1, 3, 3, 3, 3), 8.0), random_probabilities(1, (2, 1, 3, 3, 3, 3), 0.5)
    p = torch.cat([certain, vague], 1)
    learns = entropy(p[:, 1]) > entropy(p[:, 0])
    if form == "unpaired":
        learns = learns.double().mean(0).eq(1).expand(2, 3, 3, 3)  # the cell's both voxels agree on who learns
    p.requires_grad_()
    call(make(form, one_sided=True), p).backward()
    moved = p.grad[:, :, 1:].abs().sum(2) > 0  # (B, M, D, H, W)
    assert learns.float().mean() > 0.5
    assert moved[:, 1][learns].all()
    assert not moved[:, 0][learns].any()
    if form == "paired":
        assert moved[:, 0][~learns].all()
        assert not moved[:, 1][~learns].any()


def entropy(p):
    return -(p * p.log()).sum(1)


def test_one_sided_has_the_partners_of_the_symmetric_form():
    p = random_probabilities(shape=(1, 2, 3, 3, 3, 3))
    torch.testing.assert_close(call(make("paired", one_sided=True), p), call(make("paired"), p))


def test_one_sided_training_moves_the_vague_prediction_to_the_certain_one():
    labels = torch.randint(3, (2, 1, 3, 3, 3), generator=torch.Generator().manual_seed(0))
    certain = 6 * one_hot(labels)
    logits = torch.cat([certain, torch.zeros_like(certain)], 1).requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        call(make("paired", one_sided=True), logits.softmax(2)).backward()
        optimizer.step()
    assert (logits[:, 1].argmax(1) == labels[:, 0]).double().mean() > 0.95
    torch.testing.assert_close(logits[:, 0].softmax(1), certain[:, 0].softmax(1), atol=0.02, rtol=0)


def test_one_sided_learns_from_the_joint_prediction_where_given():
    p = random_probabilities().requires_grad_()
    joint = random_probabilities(5)[:, 0].requires_grad_()
    present = torch.ones(3, 2, dtype=torch.bool)
    loss = make("paired", one_sided=True)
    loss(p, present, joint=joint).backward()
    assert joint.grad is None
    assert p.grad.abs().max() > 0

    student = torch.where((entropy(p[:, 0]) >= entropy(p[:, 1]))[:, None], p[:, 0], p[:, 1])
    expected = cac_paired(torch.stack([student, joint], 1).detach().numpy(), present.numpy(), 0.1)
    assert loss(p, present, joint=joint).item() == pytest.approx(expected, rel=1e-5)
