"""Keys and values of prefixes that grow token by token, in buffers that are written in place."""

from __future__ import annotations

from collections.abc import Sequence
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
        new = key_states.shape[2]
        if not self.is_initialized:
            self.room = max(self.room, new)
            self.lazy_initialization(key_states, value_states)
        keys, values = self.extended(new)
        keys[:, :, -new:] = key_states
        values[:, :, -new:] = value_states
        return keys, values

    def extended(self, new: int = 1) -> tuple[Tensor, Tensor]:
        """Appends columns that are yet to be written; returns all."""
        end = self.columns + new
        if end > self.keys.shape[2]:
            self.room = 2 * end
            self._replace(slice(None))
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

    def move(self, holes: Sequence[int], movers: Sequence[int], rows: int) -> None:
        """Copies rows ``movers`` into ``holes`` and keeps the first ``rows``."""
        for hole, mover in zip(holes, movers, strict=True):  # few: one by one is quicker than by index
            for buffer in (self.keys, self.values):
                buffer[hole].copy_(buffer[mover])
        self.rows = rows

    def get_seq_length(self) -> int:
        """Columns so far."""
        return self.columns

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """Columns that the next tokens can see, and where these begin. Early releases of transformers 5 give positions."""
        return self.columns + (len(query_length) if isinstance(query_length, Tensor) else query_length), 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    get_max_cache_shape = get_max_length  # its name in transformers before 5.10


class GivenLayer(CacheLayerMixin):
    """Keys and values that were given, among them the column that the next token is to be written into."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor | None = None) -> None:
        """Args: keys, values: ``[N, heads, T, width]``. column: ``[1]`` int64; ``None`` for the last."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.column, self.is_initialized = keys, values, column, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """There is nothing to make."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes one column; returns all."""
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            if self.column is None:
                buffer.select(2, -1).copy_(states.squeeze(2))
            else:
                buffer.index_copy_(2, self.column, states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns before the new one, if it is the last."""
        return self.keys.shape[2] - 1

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """All columns, the new one among them, and where these begin."""
        return self.keys.shape[2], 0

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1

    get_max_cache_shape = get_max_length


class PromptCache:
    """The cache of a batch of prefixes, whatever the architecture, and what has to keep in step with its rows.

    Attributes:
        cache: What a model of ``transformers`` takes as ``past_key_values``.
        mask: ``[N, room]`` bool, false where a column holds no token; its first ``columns`` count.
        columns: Columns so far.
        padded: Whether some column of some row holds no token.
        lengths: ``[N]`` int64, tokens a row.
        memory: ``[N, S, H]``, what the encoder of an encoder-decoder model made of the prompts; ``None`` for others.
        memory_mask: ``[N, S]`` bool.
    """

    def __init__(
        self, config: PreTrainedConfig, rows: int, room: int, device: torch.device, cache: Cache | None = None
    ) -> None:
        """Makes an empty one.

        Args:
            config: Of the model.
            rows: ``N``.
            room: Columns to make room for at first.
            device: Of the model.
            cache: To be used in place of the one that ``config`` asks for.
        """
        self.cache = _new_cache(config, room) if cache is None else cache
        self.mask = torch.ones(rows, room, dtype=torch.bool, device=device)
        self.columns = 0
        self.padded = False
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.memory: Tensor | None = None
        self.memory_mask: Tensor | None = None

    def admit(self, mask: Tensor | None, new: int) -> tuple[Tensor | None, Tensor]:
        """Makes room for ``new`` tokens a row.

        Args:
            mask: ``[N, K]`` bool, false where there is padding; ``None`` where there is none.
            new: ``K``.

        Returns:
            The attention mask ``[N, columns]``, ``None`` where every column of every row holds a token; and the positions
            ``[N, K]`` of the tokens.
        """
        end = self.columns + new
        if end > self.mask.shape[1]:
            wider = self.mask.new_ones(len(self.mask), 2 * end)
            wider[:, : self.columns] = self.mask[:, : self.columns]
            self.mask = wider
        if mask is None or bool(mask.all()):
            positions = self.lengths[:, None] + torch.arange(new, device=self.mask.device)
            self.lengths = self.lengths + new
        else:
            self.mask[:, self.columns : end] = mask
            self.padded = True
            positions = (self.lengths[:, None] + mask.long().cumsum(-1) - 1).clamp(min=0)
            self.lengths = self.lengths + mask.sum(-1)
        self.columns = end
        return self.mask[:, :end] if self.padded else None, positions

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; rows may be dropped or repeated. ``rows``: ``[M]`` int64."""
        for layer in self.layers():
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
        rows = torch.as_tensor(order, device=self.mask.device)
        pairs = holes.tolist(), movers.tolist()
        for layer in self.layers():
            if isinstance(layer, SlotLayer):
                layer.move(*pairs, kept)
            else:
                layer.batch_select_indices(rows)
        self._select_rest(rows)
        return order

    def _select_rest(self, rows: Tensor) -> None:
        self.mask, self.lengths = self.mask[rows], self.lengths[rows]
        if self.memory is not None and self.memory_mask is not None:
            self.memory, self.memory_mask = self.memory[rows], self.memory_mask[rows]

    def layers(self) -> list[Any]:
        """Those of the cache."""
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


def attends_to_all(config: PreTrainedConfig) -> bool:
    """Whether every layer attends to all columns, by PyTorch's attention: a mask of ours then says all there is to say."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    windows = getattr(text, "sliding_window", None) is not None if kinds is None else set(kinds) != {"full_attention"}
    return not windows and text._attn_implementation == "sdpa"


def _slots(room: int) -> Cache:
    return Cache(layer_class_to_replicate=lambda: SlotLayer(room))  # type: ignore[arg-type]
