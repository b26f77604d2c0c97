"""Records the attention of every dynamic layer while a model runs. What the records tell is in utils/attention.py."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from models.blocks_dynamic import dynamic_layers


class AttentionProbe:
    """Records while it is attached: `with AttentionProbe(model) as probe: model(images)`. `probe.take()` gives what was
    recorded.

    layers: {qualified name: Dynamic_conv2d} in the model's order; empty for a static model, where nothing is recorded.
    The model itself and what it computes stay as they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = dict(dynamic_layers(model))
        self._records: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> "AttentionProbe":
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def attach(self) -> None:
        """Records every forward from now on. Raises RuntimeError where it does so already."""
        if self._hooks:
            raise RuntimeError("the probe is attached already: each forward would be recorded twice")
        for name, layer in self.layers.items():
            self._hooks.append(layer.attention.register_forward_hook(self._recorder(name)))

    def detach(self) -> None:
        """Records nothing more, and keeps what it has."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def take(self) -> dict[str, Tensor]:
        """The attention of each layer, (N, K), for the N samples since the last take: each row sums to 1; at least
        float32, on the CPU. Recording starts anew. For a layer that has not run it is (0, K)."""
        taken = {}
        for name, layer in self.layers.items():
            taken[name] = torch.cat([torch.zeros(0, layer.K), *self._records[name]])
            self._records[name].clear()
        return taken

    def kernels(self) -> dict[str, Tensor]:
        """The K kernels of each layer, each flattened: (K, P), on the CPU. In a fused model the batch normalisation is
        part of them."""
        return {name: layer.weight.detach().flatten(1).cpu() for name, layer in self.layers.items()}

    def temperatures(self) -> dict[str, float]:
        """The attention temperature of each layer."""
        return {name: float(layer.attention.temperature) for name, layer in self.layers.items()}

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(_module: nn.Module, _inputs: tuple[Tensor, ...], attention: Tensor) -> None:
            self._records[name].append(attention.detach().cpu())

        return record
