"""The transformer layers inside C3TR. Not a block of its own: YAMLs name C3TR, which is in models/common.py."""

from torch import Tensor, nn


class TransformerLayer(nn.Module):
    """Self-attention, then two linear layers, each of these two steps with its input added; without layer
    normalisation, as in v6.1. Tokens (L, B, C) -> (L, B, C). arXiv:2010.11929."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(channels, channels, bias=False)
        self.v = nn.Linear(channels, channels, bias=False)
        self.ma = nn.MultiheadAttention(channels, heads)
        self.fc1 = nn.Linear(channels, channels, bias=False)
        self.fc2 = nn.Linear(channels, channels, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        attended, _ = self.ma(self.q(tokens), self.k(tokens), self.v(tokens), need_weights=False)
        tokens = attended + tokens
        return self.fc2(self.fc1(tokens)) + tokens


class TransformerBlock(nn.Module):
    """Each pixel as a token, through `layers` transformer layers. In place of an embedding of the position, a linear
    map of the token is added to it, as in v6.1. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, heads: int, layers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.tr = nn.Sequential(*(TransformerLayer(channels, heads) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).permute(2, 0, 1)  # (H * W, B, C)
        tokens = self.tr(tokens + self.linear(tokens))
        return tokens.permute(1, 2, 0).reshape(x.shape)
