"""The networks in plain form: a direct reading of the reference, with none of the fast forms of `lps.model`.

3-D convolutions everywhere, a ConvGRU cell that convolves [x, h] three times at each step, a predictor called once for
each step, and a score matrix by einsum. Parameter names and shapes are those of `lps.model`, so that state dicts go
across. Tests take it as the reference for equality, `benchmarks/model.py` as the reference for speed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import N_CLASSES, HeadParams
from lps.model.networks.encoder import Act
from lps.model.networks.predictive_net import Prediction, PretrainParams
from lps.model.networks.resnet2d3d import STAGES


def conv3d(n_in: int, n_out: int, kernel: tuple[int, int, int], stride: int = 1) -> nn.Conv3d:
    """A convolution without bias, padded by half its kernel; a kernel of one frame has a temporal stride of one."""
    steps = (stride if kernel[0] > 1 else 1, stride, stride)
    t, h, w = (k // 2 for k in kernel)
    return nn.Conv3d(n_in, n_out, kernel, steps, padding=(t, h, w), bias=False)


class PlainBlock(nn.Module):
    """A basic block with `frames` = 1 or 3 frames in each kernel."""

    def __init__(self, n_in: int, n_out: int, *, stride: int, frames: int, final_relu: bool) -> None:
        super().__init__()
        self.conv1 = conv3d(n_in, n_out, (frames, 3, 3), stride)
        self.bn1 = nn.BatchNorm3d(n_out)
        self.conv2 = conv3d(n_out, n_out, (frames, 3, 3))
        self.bn2 = nn.BatchNorm3d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.final_relu = final_relu
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            steps = (stride if frames > 1 else 1, stride, stride)
            self.downsample = nn.Sequential(nn.Conv3d(n_in, n_out, 1, steps, bias=False), nn.BatchNorm3d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """(M, in, T, H, W) -> (M, out, T', H', W')."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return F.relu(out, inplace=True) if self.final_relu else out


class PlainResNet(nn.Module):
    """2d3d-ResNet as 3-D convolutions from end to end."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        n = STAGES[depth]
        self.conv1 = conv3d(3, width, (1, 7, 7), 2)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.layer1 = self._stage(n[0], (width, width), stride=1, frames=1)
        self.layer2 = self._stage(n[1], (width, 2 * width), stride=2, frames=1)
        self.layer3 = self._stage(n[2], (2 * width, 4 * width), stride=2, frames=3)
        self.layer4 = self._stage(n[3], (4 * width, 4 * width), stride=2, frames=3, final_relu=False)

    @staticmethod
    def _stage(n: int, io: tuple[int, int], *, stride: int, frames: int, final_relu: bool = True) -> nn.Sequential:
        return nn.Sequential(
            *(
                PlainBlock(
                    io[min(k, 1)],
                    io[1],
                    stride=1 if k else stride,
                    frames=frames,
                    final_relu=final_relu or k < n - 1,
                )
                for k in range(n)
            )
        )

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """(M, 3, T, H, W) -> the output of each stage by its name."""
        out = {}
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = out[name] = self.get_submodule(name)(x)
        return out

    def forward(self, x: Tensor, act: Act = "pool_relu") -> Tensor:
        """(M, 3, T, H, W) -> z (M, 4 width, ceil(H/32), ceil(W/32))."""
        x = self.stages(x)["layer4"]
        if act == "relu_pool":
            x = F.relu(x)
        return F.avg_pool3d(x, (x.shape[2], 1, 1)).squeeze(2)


class PlainCell(nn.Module):
    """One step of a ConvGRU."""

    def __init__(self, n_in: int, n_hidden: int, dropout: float) -> None:
        super().__init__()
        self.reset_gate = nn.Conv2d(n_in + n_hidden, n_hidden, 1)
        self.update_gate = nn.Conv2d(n_in + n_hidden, n_hidden, 1)
        self.out_gate = nn.Conv2d(n_in + n_hidden, n_hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """(B, in, h, w) and the state (B, hidden, h, w) -> the next state."""
        both = torch.cat([x, h], 1)
        update = torch.sigmoid(self.update_gate(both))
        reset = torch.sigmoid(self.reset_gate(both))
        out = torch.tanh(self.out_gate(torch.cat([x, h * reset], 1)))
        return self.dropout(h * (1 - update) + out * update)  # type: ignore[no-any-return]


class PlainGRU(nn.Module):
    """One direction: the cell, step by step."""

    def __init__(self, n_in: int, n_hidden: int, dropout: float) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        self.ConvGRUCell_00 = PlainCell(n_in, n_hidden, dropout)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """(B, N, in, h, w), and the state to begin with or zeros -> the N states (B, N, hidden, h, w)."""
        if h is None:
            h = x.new_zeros(len(x), self.n_hidden, *x.shape[3:])
        states = []
        for step in x.unbind(1):
            h = self.ConvGRUCell_00(step, h)
            states.append(h)
        return torch.stack(states, 1)


class PlainNet(nn.Module):
    """Encoder and aggregators, one after the other."""

    def __init__(self, params: NetParams) -> None:
        super().__init__()
        if params.encoder not in ("resnet18", "resnet34") or params.aggregator != "gru":
            raise ValueError(f"no plain form of {params.encoder = }, {params.aggregator = }")
        self.params = params
        self.n_feature = 4 * params.width
        self.n_context = params.hidden or self.n_feature
        self.backbone = PlainResNet(int(params.encoder.removeprefix("resnet")), params.width)
        self.agg_f = PlainGRU(self.n_feature, self.n_context, params.gru_dropout)
        if params.bidirectional:
            self.agg_b = PlainGRU(self.n_feature, self.n_context, params.gru_dropout)

    def encode(self, clips: Tensor, act: Act = "pool_relu") -> Tensor:
        """(B, N, 3, T, H, W) -> z (B, N, C, h, w)."""
        b, n = clips.shape[:2]
        z: Tensor = self.backbone(clips.flatten(0, 1), act)
        return z.reshape(b, n, *z.shape[1:])

    def directed(self, z: Tensor) -> list[tuple[PlainGRU, Tensor]]:
        """Return each aggregator with the maps (B, N, C, h, w) in the order in which it reads them."""
        return [(self.agg_f, z), (self.agg_b, z.flip(1))] if self.params.bidirectional else [(self.agg_f, z)]


class PlainPredictive(PlainNet):
    """Predictive pretraining; loads the state dict of `lps.model.networks.predictive_net.PredictiveNet`."""

    def __init__(self, params: NetParams, pretrain: PretrainParams) -> None:
        super().__init__(params)
        self.pretrain = pretrain
        self.network_pred = nn.Sequential(
            nn.Conv2d(self.n_context, self.n_context, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.n_context, pretrain.n_slots or self.n_feature, 1),
        )
        if pretrain.n_slots:
            self.mb = nn.Parameter(torch.randn(pretrain.n_slots, self.n_feature))

    def forward(self, clips: Tensor) -> list[Prediction]:
        """(B, N, 3, T, H, W) normalised frames -> one Prediction per direction."""
        return [self._direction(gru, z) for gru, z in self.directed(self.encode(clips))]

    def next_map(self, context: Tensor) -> Tensor:
        """(B, hidden, h, w) -> predicted map (B, C, h, w)."""
        scores: Tensor = self.network_pred(context)
        if not self.pretrain.n_slots:
            return scores
        return torch.einsum("bkhw,kc->bchw", F.softmax(scores, 1), self.mb)

    def _direction(self, gru: PlainGRU, z: Tensor) -> Prediction:
        if self.pretrain.rollout == "teacher_forced":
            states = gru(F.relu(z[:, :-1]))
            context = states[:, -1]
            predicted = [self.next_map(state) for state in states[:, self.pretrain.min_context - 1 :].unbind(1)]
        else:
            context = h = gru(F.relu(z[:, : -self.pretrain.pred_step]))[:, -1]
            predicted = []
            for _ in range(self.pretrain.pred_step):
                predicted.append(self.next_map(h))
                h = gru(F.relu(predicted[-1])[:, None], h)[:, -1]  # once more than needed, as the reference has it
        target = z[:, -len(predicted) :]
        if self.pretrain.stop_grad:
            target = target.detach()
        return Prediction(_rows(torch.stack(predicted, 1)), _rows(target), context)


def _rows(x: Tensor) -> Tensor:
    """(B, P, C, h, w) -> (B P h w, C)."""
    return x.permute(0, 1, 3, 4, 2).reshape(-1, x.shape[2])


def plain_loss(predictions: Sequence[Prediction]) -> Tensor:
    """Cross entropy of each prediction against all targets of its direction: mean over rows, sum over directions."""
    total = predictions[0].predicted.new_zeros(())
    for p in predictions:
        scores = torch.einsum("qc,kc->qk", p.predicted, p.target)
        total = total + F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
    return total


class PlainDetector(PlainNet):
    """The detector on the last states; loads the state dict of `lps.model.networks.detector.Detector`."""

    def __init__(self, params: NetParams, head: HeadParams) -> None:
        super().__init__(params)
        if head.context != "bidir_last":
            raise ValueError(f"no plain form of {head.context = }")
        self.head = head
        n_in = 2 * self.n_context
        self.final_bn: nn.Module = nn.BatchNorm1d(n_in) if head.final_bn else nn.Identity()
        self.final_fc = nn.Sequential(nn.Dropout(head.dropout), nn.Linear(n_in, N_CLASSES))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, N, 3, T, H, W) normalised frames -> logits (B, 2), real first."""
        last = [gru(F.relu(z))[:, -1] for gru, z in self.directed(self.encode(clips, self.head.feature_act))]
        context = F.adaptive_avg_pool2d(torch.cat(last, 1), 1).flatten(1)
        return self.final_fc(self.final_bn(context))  # type: ignore[no-any-return]
