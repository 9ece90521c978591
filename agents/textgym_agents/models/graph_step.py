"""One decoding step of a model in shapes that do not change, so that a GPU replays it as one graph of kernels.

At one token a row a GPU is done with a layer before Python has asked for the next. A CUDA graph asks for all of them at once,
but for the same addresses every time: keys and values stay in buffers from one rollout to the next, attention reads all their
columns under a mask, and when half of the rows have left, a graph for half as many takes over. On a CPU the same step runs
without a graph, which is slower than the ordinary one and there for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from textgym_agents.models.cache import GivenLayer, PromptCache, SlotLayer, attends_to_all
from textgym_agents.models.loading import ModelError

ROUND = 64  # columns
SIZES = 2  # of rollouts, for which buffers and graphs are kept: those of training and of evaluation, for example
WARM_UP = 3  # runs before the capture, in which libraries set themselves up


class StaticLayer(SlotLayer):
    """Keys and values in buffers that are there again, at the same addresses, in the next rollout of as many rows."""

    def __init__(self, room: int, rows: int, buffers: dict[Any, Tensor]) -> None:
        """Args: room: Columns. rows: That are decoded. buffers: Of this layer."""
        super().__init__(room)
        self._wanted, self._buffers, self._made = rows, buffers, 0

    def _buffer(self, like: Tensor) -> Tensor:
        self._made += 1  # keys and values take turns
        key = self._made % 2, self.room, like.dtype, like.device
        if len(like) != self._wanted:  # distinct prompts, before they are repeated
            return super()._buffer(like)
        if key not in self._buffers:  # zeros: what is masked must still be a number
            self._buffers[key] = super()._buffer(like).zero_()
        return self._buffers[key]


class GraphStep:
    """Steps of one model; see the module."""

    def __init__(self, model: PreTrainedModel, bf16: Callable[[], bool]) -> None:
        """Args: model: A causal language model. bf16: Whether it computes in bfloat16.

        Raises:
            ModelError: It does not attend to all columns, or not by PyTorch's attention.
        """
        if not attends_to_all(model.config):
            raise ModelError(
                "Expected a model with full attention in every layer, by attn_implementation='sdpa', with static_shapes=True, "
                f"actual: {type(model).__name__} ({model.config.get_text_config()._attn_implementation})"
            )
        self._model, self._bf16 = model, bf16
        self._buffers: dict[tuple[int, int], list[dict[Any, Tensor]]] = {}  # of every layer, by rows and room
        self._steps: dict[Any, _Captured] = {}

    def cache(self, rows: int, room: int) -> Cache:
        """An empty cache for a rollout of ``rows`` prefixes, with room for at least so many columns."""
        room = -(-room // ROUND) * ROUND  # the longest prompt differs from rollout to rollout, the buffers must not
        size = rows, room
        if size not in self._buffers:
            if len(self._buffers) == SIZES:
                self._buffers.clear()
                self._steps.clear()
            layers = self._model.config.get_text_config().num_hidden_layers
            self._buffers[size] = [{} for _ in range(layers)]
        return Cache(layers=[StaticLayer(room, rows, buffers) for buffers in self._buffers[size]])

    def __call__(self, kept: PromptCache, tokens: Tensor, positions: Tensor) -> Tensor:
        """Reads a token a row, as :meth:`Backbone.extend` does.

        Args:
            kept: With a :meth:`cache`; it has admitted the tokens, the layers have not.
            tokens: ``[N, 1]`` int64.
            positions: ``[N, 1]`` int64.

        Returns:
            ``[N, H]``; valid until the next step.
        """
        layers: list[SlotLayer] = kept.layers()
        for layer in layers:
            layer.extended()
        n, buffer = len(tokens), layers[0].keys
        rows = len(buffer)
        while rows // 2 >= n:
            rows //= 2
        key = (buffer.data_ptr(), buffer.shape, rows)
        if key not in self._steps:
            self._steps[key] = _Captured(self._model, layers, rows, self._bf16())
        return self._steps[key](tokens, positions, kept.mask[:, : kept.columns])


class _Captured:
    """The step for so many rows, with inputs and outputs at fixed addresses."""

    def __init__(self, model: PreTrainedModel, layers: list[SlotLayer], rows: int, bf16: bool) -> None:
        device, room = layers[0].keys.device, layers[0].keys.shape[2]
        self._model, self._bf16 = model, bf16
        self._given = [(layer.keys[:rows], layer.values[:rows]) for layer in layers]
        self._tokens = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._positions = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._mask = torch.ones(rows, 1, 1, room, dtype=torch.bool, device=device)
        self._column = torch.zeros(1, dtype=torch.long, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, tokens: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        n, columns = seen.shape
        self._tokens[:n], self._positions[:n], self._mask[:n, 0, 0, :columns] = tokens, positions, seen
        self._mask[..., columns:] = False
        self._column.fill_(columns - 1)
        if not tokens.is_cuda:
            return self._step()[:n]
        if self._graph is None:
            self._capture()
        assert self._graph is not None
        self._graph.replay()
        return self._hidden[:n]

    def _step(self) -> Tensor:
        given = Cache(layers=[GivenLayer(keys, values, self._column) for keys, values in self._given])
        # the cache of converted weights must not outlive a capture
        with torch.autocast(self._tokens.device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False):
            out = self._model.base_model(
                input_ids=self._tokens,
                attention_mask=self._mask,
                position_ids=self._positions,
                past_key_values=given,
                use_cache=True,
            )
        hidden: Tensor = out.last_hidden_state[:, -1]
        return hidden.float()

    def _capture(self) -> None:
        """A step may be made more than once: it writes the same keys and values into the same column."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._step()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._hidden = self._step()
