"""Operators of torch outside its documented interface: all of them, why each is used, and what would replace it.

`tests/kernels/test_torch_private.py` holds each one against its formula and names the version of torch where one has
changed.

    multiply_onednn      torch.ops.mkldnn._linear_pointwise    oneDNN's float32 product; torch.nn.functional.linear
                                                               takes the BLAS whatever is asked for
    gru_sequence         torch.gru                             torch.nn.GRU without its module: parameters from a dict
    lstm_sequence        torch.lstm                            torch.nn.LSTM likewise
    times_tanh_slope     torch.ops.aten.tanh_backward          g (1 - h^2) in one pass over memory instead of three
    relu_slope_          torch.ops.aten.threshold_backward     g where h > 0, in place; torch.where makes a copy
    repeat_while         torch._higher_order_ops.while_loop    a loop that stays one in an exported graph
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def multiply_onednn(
    a: Float[Tensor, "M D"], b: Float[Tensor, "D N"], bias: Float[Tensor, " N"] | None
) -> Float[Tensor, "M N"]:
    """a b, plus `bias` on every row, float32 on a CPU. `b` must be stored without gaps, by rows or by columns."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, bias, "none", [], "")
    return output


def gru_sequence(
    x: Float[Tensor, "T B D"], h_0: Float[Tensor, "B H"], params: list[Tensor]
) -> tuple[Float[Tensor, "T B H"], Float[Tensor, "B H"]]:
    """Outputs and last memory; `params` are w_ih, w_hh, b_ih, b_hh."""
    outputs, last = torch.gru(x, h_0[None], params, *_ONE_LAYER)
    return outputs, last[0]


def lstm_sequence(
    x: Float[Tensor, "T B D"], h_0: Float[Tensor, "B H"], c_0: Float[Tensor, "B H"], params: list[Tensor]
) -> tuple[Float[Tensor, "T B H"], Float[Tensor, "B H"], Float[Tensor, "B H"]]:
    """Outputs, last output and last cell; `params` are w_ih, w_hh, b_ih, b_hh."""
    outputs, h, c = torch.lstm(x, [h_0[None], c_0[None]], params, *_ONE_LAYER)
    return outputs, h[0], c[0]


# has_biases, num_layers, dropout, train, bidirectional, batch_first; cuDNN has a backward pass only if `train`
_ONE_LAYER = (True, 1, 0.0, True, False, False)


def times_tanh_slope(g: Tensor, h: Tensor) -> Tensor:
    """g (1 - h^2)."""
    output: Tensor = torch.ops.aten.tanh_backward(g, h)
    return output


def relu_slope_(g: Tensor, h: Tensor) -> None:
    """Set g to 0 where h <= 0, in place."""
    torch.ops.aten.threshold_backward.grad_input(g, h, 0, grad_input=g)


def repeat_while(
    goes_on: Callable[..., Tensor], step: Callable[..., tuple[Tensor, ...]], start: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """`step` of its own results for as long as `goes_on`, a bool, says so of them. Under torch.export one loop."""
    from torch._higher_order_ops.while_loop import while_loop

    ends: tuple[Tensor, ...] = while_loop(goes_on, step, start)
    return ends
