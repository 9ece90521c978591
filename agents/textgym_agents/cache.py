"""Keys and values of prefixes that grow token by token, in buffers that are written in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):
    """Keys and values of one attention layer, ``[N, heads, columns, width]`` each.

    ``transformers``' own growing cache copies everything for every new token. This one writes the token into a buffer with room
    to grow, and closes the gap of a row that leaves by moving the last row there.
    """

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, room: int) -> None:
        """Args: room: Columns to make room for at first."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.room, self.rows, self.columns = room, 0, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Makes the buffers, once shapes are known."""
        self.rows = len(key_states)
        self.keys, self.values = self._buffer(key_states), self._buffer(value_states)
        self.is_initialized = True

    def _buffer(self, like: Tensor) -> Tensor:
        return like.new_empty(len(like), like.shape[1], self.room, like.shape[3])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends columns ``[N, heads, K, width]``; returns all that are there."""
        end = self.columns + key_states.shape[2]
        self.room = max(self.room, end)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if end > self.keys.shape[2]:
            self.room = 2 * end
            self._replace(slice(None))
        self.keys[: self.rows, :, self.columns : end] = key_states
        self.values[: self.rows, :, self.columns : end] = value_states
        self.columns = end
        return self.keys[: self.rows, :, :end], self.values[: self.rows, :, :end]

    def _replace(self, rows: Tensor | slice) -> None:
        """New buffers with these rows."""
        for name in ("keys", "values"):
            kept = getattr(self, name)[: self.rows, :, : self.columns][rows]
            buffer = self._buffer(kept)
            buffer[:, :, : self.columns] = kept
            setattr(self, name, buffer)
        self.rows = len(self.keys)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows, in this order; rows may be dropped or repeated."""
        self._replace(indices)

    def move(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Copies rows ``movers`` into ``holes`` and keeps the first ``rows``."""
        if len(holes):
            self.keys[holes, :, : self.columns] = self.keys[movers, :, : self.columns]
            self.values[holes, :, : self.columns] = self.values[movers, :, : self.columns]
        self.rows = rows

    def get_seq_length(self) -> int:
        """Columns so far."""
        return self.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the next ``query_length`` tokens can see, and where these begin."""
        return self.columns + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    get_max_cache_shape = get_max_length  # its name in transformers before 5.10


class PromptCache:
    """The cache of a batch of prefixes, whatever the architecture, and what has to keep in step with its rows.

    Attributes:
        cache: What a model of ``transformers`` takes as ``past_key_values``.
        mask: ``[N, room]`` bool, true where a column holds a token; its first ``columns`` count.
        columns: Columns so far.
        padded: Whether some column of some row holds no token.
        lengths: ``[N]`` int64, tokens a row.
        memory: ``[N, S, H]``, what the encoder of an encoder-decoder model made of the prompts; ``None`` for others.
        memory_mask: ``[N, S]`` bool.
    """

    def __init__(self, config: PreTrainedConfig, rows: int, room: int, device: torch.device) -> None:
        """Args: config: Of the model. rows: ``N``. room: Columns to make room for at first. device: Of the model."""
        self.cache = _new_cache(config, room)
        self.mask = torch.zeros(rows, room, dtype=torch.bool, device=device)
        self.columns = 0
        self.padded = False
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.memory: Tensor | None = None
        self.memory_mask: Tensor | None = None

    def admit(self, mask: Tensor) -> tuple[Tensor | None, Tensor]:
        """Makes room for tokens with ``mask`` ``[N, K]``.

        Returns:
            The attention mask ``[N, columns]``, ``None`` where every column of every row holds a token; and the positions
            ``[N, K]`` of the tokens.
        """
        end = self.columns + mask.shape[1]
        if end > self.mask.shape[1]:
            wider = self.mask.new_zeros(len(self.mask), 2 * end)
            wider[:, : self.columns] = self.mask[:, : self.columns]
            self.mask = wider
        self.mask[:, self.columns : end] = mask
        self.columns = end
        self.padded = self.padded or not bool(mask.all())
        positions = (self.lengths[:, None] + mask.long().cumsum(-1) - 1).clamp(min=0)
        self.lengths = self.lengths + mask.sum(-1)
        return self.mask[:, :end] if self.padded else None, positions

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; rows may be dropped or repeated. ``rows``: ``[M]`` int64."""
        for layer in self._layers():
            layer.batch_select_indices(rows)
        self._select_rest(rows)

    def drop(self, ended: np.ndarray) -> np.ndarray:
        """Lets rows leave. Rows from the end take their places, so that little has to be copied.

        Args:
            ended: ``(N,)`` bool.

        Returns:
            ``(M,)``: the old index of every row that is left.
        """
        kept = len(ended) - int(ended.sum())
        order = np.arange(kept)
        holes, movers = np.flatnonzero(ended[:kept]), kept + np.flatnonzero(~ended[kept:])
        order[holes] = movers
        device = self.mask.device
        rows = torch.as_tensor(order, device=device)
        at, source = torch.as_tensor(holes, device=device), torch.as_tensor(movers, device=device)
        for layer in self._layers():
            if isinstance(layer, SlotLayer):
                layer.move(at, source, kept)
            else:
                layer.batch_select_indices(rows)
        self._select_rest(rows)
        return order

    def _select_rest(self, rows: Tensor) -> None:
        self.mask, self.lengths = self.mask[rows], self.lengths[rows]
        if self.memory is not None and self.memory_mask is not None:
            self.memory, self.memory_mask = self.memory[rows], self.memory_mask[rows]

    def _layers(self) -> list[Any]:
        if isinstance(self.cache, EncoderDecoderCache):
            return [*self.cache.self_attention_cache.layers, *self.cache.cross_attention_cache.layers]
        return list(self.cache.layers)


_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


def _new_cache(config: PreTrainedConfig, room: int) -> Any:
    if config.is_encoder_decoder:
        return EncoderDecoderCache(_slots(room), DynamicCache(config=config.get_text_config(decoder=True)))
    text = config.get_text_config()
    if set(getattr(text, "layer_types", None) or ()) <= _ATTENTION_LAYERS:
        return _slots(room)
    return DynamicCache(config=text)  # states that are no keys and values: transformers knows how to keep them


def _slots(room: int) -> Cache:
    return Cache(layer_class_to_replicate=lambda: SlotLayer(room))  # type: ignore[arg-type]
