"""The folded attention against the literal, padded computation of the benchmark, in float64."""

import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_cmc.networks.window_attention import WindowAttention, attention_in_windows, resize_table

DIM, HEADS = 8, 2


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "window_attention.py"
    spec = importlib.util.spec_from_file_location("benchmark_window_attention", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_attention(window, table_side, scale=1.0, dtype=torch.float64):
    torch.manual_seed(0)
    attention = WindowAttention(DIM, HEADS, window, table_side).to(dtype)
    for name, parameter in attention.named_parameters():
        torch.nn.init.normal_(parameter, std=scale if "rel_pos" in name else 0.5)
    return attention


def compute(attention, kind, x):
    """Output, and gradients of the input and of every parameter, with ``kind`` of attention."""
    attention.__class__ = kind
    leaf = x.clone().requires_grad_()
    output = attention(leaf)
    gradients = torch.autograd.grad(output.sin().sum(), [leaf, *attention.parameters()])
    return [output.detach(), *gradients]


def assert_equal(ours, literal, tolerance=1e-12):
    """Within ``tolerance`` of each tensor's largest value; gradients that all but vanish are sums rounded at 1e-16."""
    for a, b in zip(ours, literal, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max() + 1e-14


@pytest.mark.parametrize(
    ("grid", "window"),
    [
        ((3, 3, 3), 5),  # one window, padding on every axis
        ((4, 2, 3), 5),
        ((5, 2, 4), 5),  # padding on some axes
        ((5, 5, 5), 5),  # none
        ((4, 4, 4), 2),  # whole windows
        ((7, 5, 4), 3),  # windows of every kind
        ((2, 3, 2), 10),  # nearly nothing but padding
        ((3, 4, 5), None),  # global: one window of the longest side
    ],
)
def test_folded_attention_is_the_literal_one(benchmark, grid, window):
    attention = make_attention(window, window or max(grid))
    x = torch.randn(2, *grid, DIM, dtype=torch.float64)
    assert_equal(compute(attention, WindowAttention, x), compute(attention, benchmark.LiteralAttention, x))


@settings(max_examples=25, deadline=None)
@given(grid=st.tuples(*[st.integers(1, 5)] * 3), window=st.integers(1, 5))
def test_folded_attention_is_the_literal_one_on_any_grid(benchmark, grid, window):
    attention = make_attention(window, window)
    x = torch.randn(1, *grid, DIM, dtype=torch.float64)
    assert_equal(compute(attention, WindowAttention, x), compute(attention, benchmark.LiteralAttention, x))


def test_nothing_overflows_or_cancels_with_large_position_biases(benchmark):
    """With biases of thousands a plain sum of exponentials would be infinite, and a difference of sums nonsense."""
    attention = make_attention(6, 6, scale=1000.0)
    x = torch.randn(1, 3, 4, 2, DIM, dtype=torch.float64)
    ours, literal = compute(attention, WindowAttention, x), compute(attention, benchmark.LiteralAttention, x)
    assert all(part.isfinite().all() for part in ours)
    assert_equal(ours[:1], literal[:1], 1e-10)  # of such scores only the output is more than rounding errors


def test_real_queries_of_the_benchmark_are_exact_too(benchmark):
    attention = make_attention(5, 5)
    x = torch.randn(1, 3, 4, 2, DIM, dtype=torch.float64)
    assert_equal(
        compute(attention, benchmark.RealQueriesAttention, x), compute(attention, benchmark.LiteralAttention, x)
    )


@pytest.mark.parametrize("grid", [(6, 6, 6), (6, 5, 4)])
def test_folded_attention_at_the_released_window(benchmark, grid):
    """Against the cheaper of the two references: 2744 keys are many."""
    attention = make_attention(14, 14)
    x = torch.randn(1, *grid, DIM, dtype=torch.float64)
    assert_equal(compute(attention, WindowAttention, x), compute(attention, benchmark.RealQueriesAttention, x))


def test_padding_is_attended():
    """Masking the padding, which is a window of the grid's own size, gives something else."""
    x = torch.randn(1, 3, 3, 3, DIM, dtype=torch.float64)
    attention, masked = make_attention(5, 5), make_attention(3, 3)
    masked.load_state_dict({k: v[2:-2] if "rel_pos" in k else v for k, v in attention.state_dict().items()})
    assert (attention(x) - masked(x)).abs().max() > 0.01 * attention(x).abs().max()


def test_tables_of_a_global_block_are_resized_to_the_grid():
    attention = make_attention(None, 4)
    fitted = make_attention(None, 3)
    fitted.load_state_dict(attention.state_dict())  # resized on loading
    x = torch.randn(1, 3, 3, 3, DIM, dtype=torch.float64)
    assert fitted.rel_pos_d.shape == (5, DIM // HEADS)
    torch.testing.assert_close(attention(x), fitted(x), rtol=1e-12, atol=1e-12)


def test_resizing_a_table_follows_a_line():
    """Half-pixel centres: sample i of 3 out of 6 lies at 2 i + 0.5."""
    line = torch.arange(6.0)[:, None]
    torch.testing.assert_close(resize_table(line, 3), torch.tensor([[0.5], [2.5], [4.5]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_attention_is_in_float32(dtype):
    """Only the two projections round: logits with the padding's logarithm, softmax and sums are in float32."""
    attention = make_attention(14, 14, dtype=torch.float32)
    x = torch.randn(1, 3, 3, 3, DIM)
    seen = []
    attention.proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", dtype), torch.no_grad():
        attention(x)
        qkv = attention.qkv(x)
    tables = torch.cat([attention.rel_pos_d, attention.rel_pos_h, attention.rel_pos_w])
    pad = attention.qkv.bias.view(3, HEADS, -1)
    expected = attention_in_windows(qkv.float().unflatten(-1, (3, HEADS, -1)), pad, tables, 14).flatten(4)
    torch.testing.assert_close(seen[0].float(), expected, rtol=1e-5, atol=1e-5)
