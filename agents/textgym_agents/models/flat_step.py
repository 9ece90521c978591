"""One decoding step of a model as a flat list of tensor operations, recorded once.

For one token a row, a small model on a CPU spends as long in Python, in the modules of ``transformers`` and in their checks of
arguments, as in arithmetic. So the operations of such a step are recorded for rows and columns of any number, and replayed from
then on: the same kernels in the same order, with the same results to the last bit, or the recording is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from textgym_agents.models.cache import GivenLayer, SlotLayer, attends_to_all

PAYS_AFTER = 256  # steps of a model: recording takes as long as a thousand steps do, so short runs go without

Step = Callable[[Tensor, Tensor, Tensor | None, list[Tensor], list[Tensor]], Tensor]
"""Hidden states ``[N, H]`` from tokens and positions ``[N, 1]``, an attention mask ``[N, 1, 1, T]`` or ``None``, and the keys
and values of every layer, ``[N, heads, T, width]``, whose last column the step fills in."""


class FlatStep:
    """Steps of one model, recorded when it has made so many that it pays."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Args: model: A causal language model, as long as its parameters are the same objects."""
        self._model, self._steps = model, 0
        self._recorded: dict[bool, Step | None] = {}  # by whether there is a mask

    def __call__(
        self, layers: Sequence[Any], tokens: Tensor, positions: Tensor, attention: Tensor | None
    ) -> Tensor | None:
        """The step, or ``None`` where it has to be made by the model itself.

        Args:
            layers: Of the cache, all with room for one more column, which is appended.
            tokens: ``[N, 1]`` int64.
            positions: ``[N, 1]`` int64.
            attention: ``[N, T]`` bool, the new column included, or ``None`` where no column is padding.

        Returns:
            ``[N, H]``.
        """
        self._steps += 1
        if self._steps < PAYS_AFTER or len(tokens) < 2:  # one row is another shape to a recording
            return None
        masked = attention is not None
        if masked not in self._recorded:
            self._recorded[masked] = record(self._model, layers, masked) if self._fits(layers) else None
        step = self._recorded[masked]
        if step is None:
            return None
        views = [layer.extended() for layer in layers]
        mask = None if attention is None else attention[:, None, None]
        return step(tokens, positions, mask, [keys for keys, _ in views], [values for _, values in views])

    def _fits(self, layers: Sequence[Any]) -> bool:
        plain = all(isinstance(layer, SlotLayer) for layer in layers) and attends_to_all(self._model.config)
        return plain and self._model.device.type == "cpu"


def record(model: PreTrainedModel, layers: Sequence[SlotLayer], masked: bool) -> Step | None:
    """The step of a model as recorded operations; ``None`` if they are not the same to the last bit.

    Args:
        model: A causal language model that attends to all columns.
        layers: Of a cache of it, for the shapes of keys and values.
        masked: Whether the step takes an attention mask.
    """

    def step(
        tokens: Tensor, positions: Tensor, mask: Tensor | None, keys: list[Tensor], values: list[Tensor]
    ) -> Tensor:
        given = Cache(layers=[GivenLayer(k, v) for k, v in zip(keys, values, strict=True)])
        out = model.base_model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=given, use_cache=True
        )
        hidden: Tensor = out.last_hidden_state[:, -1]
        return hidden

    def example(rows: int, columns: int) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(rows)

        def noise(layer: SlotLayer) -> Tensor:
            _, heads, _, width = layer.keys.shape
            return torch.randn(rows, heads, columns + 3, width, generator=generator)[:, :, :columns]

        tokens = torch.randint(0, model.config.get_text_config().vocab_size, (rows, 1), generator=generator)
        mask = torch.rand(rows, 1, 1, columns, generator=generator) > 0.3
        mask[..., -1] = True
        keys, values = ([noise(layer) for layer in layers] for _ in range(2))
        return tokens, torch.full((rows, 1), columns), mask if masked else None, keys, values

    # sizes that occur nowhere else in the model, or the recording would take them for one another
    sizes = {size for p in model.parameters() for size in p.shape} | {s for x in layers for s in x.keys.shape}
    rows, columns = [n for n in (13, 29, 37, 43, 59, 67) if n not in sizes][:2]
    try:
        with torch.inference_mode(False), torch.no_grad():
            graph = make_fx(step, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example(rows, columns))
            recorded = _quick(graph)
            for shape in ((2, 5), (rows, columns), (24, 33)):
                ours, theirs = example(*shape), example(*shape)
                given, places, mask, keys, values = theirs
                # the model makes of a mask of two dimensions what it makes of it otherwise
                wanted = step(given, places, None if mask is None else mask[:, 0, 0], keys, values)
                same = torch.equal(recorded(*ours), wanted)
                for mine, other in zip(ours[3] + ours[4], keys + values, strict=True):
                    same = same and torch.equal(mine, other)
                if not same:
                    return None
    except Exception:  # whatever a model does that cannot be recorded: it can make its steps itself
        return None
    return recorded


_ALIASES = {"split": "unsafe_split"}  # the same without autograd, and not shadowed by a function written in Python


def _quick(graph: GraphModule) -> Step:
    """The graph with Python's own bindings of operations in place of the dispatcher's, which take several times as long."""
    graph.graph.eliminate_dead_code()
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node.target is torch.ops.aten.clone.default and not node.kwargs:  # of dropout, which is off
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        name = _ALIASES.get(name := node.target._schema.name.removeprefix("aten::"), name)
        for binding in (torch._C._VariableFunctions, torch.Tensor, torch._C._nn):
            if hasattr(binding, name):
                node.target = getattr(binding, name)
                break
    for name, parameter in list(graph._parameters.items()):  # found at once as attributes, slowly as parameters
        del graph._parameters[name]
        object.__setattr__(graph, name, parameter)
    graph.recompile()
    assert isinstance(graph, nn.Module)
    return graph.forward
