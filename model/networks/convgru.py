"""The aggregator: a ConvGRU with 1x1 kernels that carries what was seen over the blocks of a clip.

Paper, section 3.2: a ConvGRU (Ballas et al., ICLR 2016) whose state is the context feature. A fully connected layer
with 512 inputs needs two directions of 256, as in MemDPC's classifier: one aggregator reads the clip forwards, one
backwards.

With 1x1 kernels every place of the map is on its own, so that a step is a matrix product over (clips x places) rows.
The input's share of all three gates and all steps is one product before the loop; both directions share each product of
the loop.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class ConvGRUCell(nn.Module):
    """The parameters of one cell, under their reference names; `scan` does the arithmetic."""

    def __init__(self, n_in: int, n_hidden: int) -> None:
        super().__init__()
        self.n_in = n_in
        self.reset_gate = nn.Conv2d(n_in + n_hidden, n_hidden, 1)
        self.update_gate = nn.Conv2d(n_in + n_hidden, n_hidden, 1)
        self.out_gate = nn.Conv2d(n_in + n_hidden, n_hidden, 1)

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights for inputs (in, 3 hidden), for states of reset and update (hidden, 2 hidden) and out, and biases."""
        gates = [self.reset_gate, self.update_gate, self.out_gate]
        weights = [gate.weight.flatten(1) for gate in gates]  # (hidden, in + hidden): input first
        x = torch.cat([w[:, : self.n_in] for w in weights]).t()
        ru = torch.cat([w[:, self.n_in :] for w in weights[:2]]).t()
        o = weights[2][:, self.n_in :].t()
        bias = torch.cat([gate.bias for gate in gates if gate.bias is not None])
        return x, ru, o, bias


class ConvGRU(nn.Module):
    """One direction of the aggregator.

    `r = sigmoid(W_r [x, h])`, `u = sigmoid(W_u [x, h])`, `o = tanh(W_o [x, r h])`, `h' = (1 - u) h + u o`, then dropout
    on `h'`, which is carried on to the next step as MemDPC does.
    """

    def __init__(self, n_in: int, n_hidden: int, dropout: float = 0.1, gain: float = 1.0) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        self.dropout = dropout
        cell = ConvGRUCell(n_in, n_hidden)
        for gate in (cell.reset_gate, cell.update_gate, cell.out_gate):
            nn.init.orthogonal_(gate.weight, gain)
            assert gate.bias is not None  # mypy
            nn.init.zeros_(gate.bias)
        self.add_module("ConvGRUCell_00", cell)

    @property
    def cell(self) -> ConvGRUCell:
        """The one layer."""
        cell = self.get_submodule("ConvGRUCell_00")
        assert isinstance(cell, ConvGRUCell)  # mypy
        return cell

    def forward(self, x: Tensor, h0: Tensor | None = None) -> Tensor:
        """(B, N, in, h, w), and (B, hidden, h, w) to begin with, else zeros -> the N states (B, N, hidden, h, w)."""
        b, _, _, h, w = x.shape
        start = None if h0 is None else to_rows(h0[:, None])
        states = scan([self], to_rows(x)[None], start)
        return from_rows(states[0], b, h, w)


def to_rows(x: Tensor) -> Tensor:
    """(B, N, C, h, w) -> (N, B h w, C)."""
    return x.permute(1, 0, 3, 4, 2).flatten(1, 3)


def from_rows(rows: Tensor, b: int, h: int, w: int) -> Tensor:
    """(N, B h w, C) -> (B, N, C, h, w)."""
    return rows.reshape(rows.shape[0], b, h, w, -1).permute(1, 0, 4, 2, 3)


def scan(grus: Sequence[ConvGRU], x: Tensor, h0: Tensor | None = None) -> Tensor:
    """Run D aggregators side by side, each on its own sequence.

    `x` (D, N, R, in) with R = clips x places, `h0` (D, R, hidden) or None for zeros; returns all states
    (D, N, R, hidden).
    """
    x_weight, ru_weight, o_weight, bias = (torch.stack(m) for m in zip(*(g.cell.matrices() for g in grus), strict=True))
    d, n, r, _ = x.shape
    hidden = grus[0].n_hidden
    dropout = grus[0].dropout if grus[0].training else 0.0
    inputs = torch.baddbmm(bias[:, None], x.flatten(1, 2), x_weight).reshape(d, n, r, -1)
    h = inputs.new_zeros(d, r, hidden) if h0 is None else h0.to(inputs.dtype)
    states = []
    for step in inputs.unbind(1):
        x_ru, x_o = step[..., : 2 * hidden], step[..., 2 * hidden :]
        reset, update = torch.sigmoid(torch.baddbmm(x_ru, h, ru_weight)).chunk(2, -1)
        out = torch.tanh(torch.baddbmm(x_o, reset * h, o_weight))
        h = F.dropout(torch.lerp(h, out, update), dropout, training=dropout > 0)
        states.append(h)
    return torch.stack(states, 1)
