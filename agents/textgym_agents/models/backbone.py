"""One interface to causal and encoder-decoder language models: hidden states first, logits only where they are asked for.

Both kinds read a prompt and then write a completion. A causal model reads both as one sequence. An encoder-decoder model reads
the prompt with its encoder, once, and the completion with its decoder, behind a start token. From here on nobody needs to
know which it is: :meth:`Backbone.start` and :meth:`Backbone.extend` read with a cache, :meth:`Backbone.hidden_states` reads
whole episodes at once, for training.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from textgym_agents.models.attention import one_query_attention
from textgym_agents.models.cache import PromptCache
from textgym_agents.models.flat_step import FlatStep
from textgym_agents.models.graph_step import GraphStep
from textgym_agents.models.loading import ModelError
from textgym_agents.models.recompute import recomputed_layers, recomputing
from textgym_agents.models.token_scores import Head, Steering


class Backbone:
    """A causal language model without its head.

    Attributes:
        model: The model with its head.
        vocab_size: ``V``: of a larger head the first ``V`` logits count.
        steering: Added to all logits, see :class:`Head`.
    """

    steering: Steering | None = None

    def __init__(self, model: PreTrainedModel, vocab_size: int, bf16: bool | str, static_shapes: bool = False) -> None:
        """Args: model: A language model. vocab_size: Of the environment. bf16, static_shapes: See :class:`LMPolicy`.

        Raises:
            ModelError: The model's logits are not a linear function of its last hidden states (capped or not).
        """
        self.model, self.vocab_size, self.bf16 = model, vocab_size, bf16
        self._output: Any = model.get_output_embeddings()
        self._scale, self._softcap = 1.0, getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self._scale = self._measured_scale()
        self._static = static_shapes
        self._recomputed = recomputed_layers(model)
        self._parts: tuple[int, ...] = ()
        self._new_steps()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self._output.weight.device
        return device

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[..., V]`` float32 of hidden states ``[..., H]``, those of every token."""
        with self.precision():
            return self.head.logits(hidden)

    @property
    def head(self) -> Head:
        """How hidden states become logits."""
        layer, v = self._output, self.vocab_size
        bias = getattr(layer, "bias", None)
        dtype = torch.bfloat16 if self.bf16_in_use else torch.float32
        weight = layer.weight if len(layer.weight) == v else layer.weight[:v]
        return Head(weight, None if bias is None else bias[:v], self._scale, self._softcap, dtype, self.steering)

    def precision(self) -> AbstractContextManager[object]:
        """A context in which products of matrices are in bfloat16, if the model computes so."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16_in_use else nullcontext()

    def start(self, ids: Tensor, mask: Tensor, own: Tensor, room: int, rows: int) -> tuple[Tensor, PromptCache]:
        """Reads prefixes.

        Args:
            ids: ``[N, S]`` int64, left-padded.
            mask: ``[N, S]`` bool, true where there is a token.
            own: ``[N, S]`` bool, true at the policy's own tokens; the completion starts at the first.
            room: Columns to make room for at first.
            rows: That there will be once prefixes that are equal are repeated.

        Returns:
            The hidden state ``[N, H]`` after each, and the cache for :meth:`extend`.
        """
        self._new_steps()
        cache = None if self._graphs is None else self._graphs.cache(rows, room)
        kept = PromptCache(self.model.config, len(ids), room, ids.device, cache)
        return self._read(ids, mask, kept), kept

    def extend(self, kept: PromptCache, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Reads more tokens ``[N, K]``, left-padded as ``mask`` says; returns the hidden states ``[N, H]`` after them."""
        return self._read(tokens, mask, kept)

    def hidden_states(self, ids: Tensor, mask: Tensor, own: Tensor, columns: int) -> Tensor:
        """The states in which the tokens of the last columns were chosen, in one pass.

        Args:
            ids: ``[B, S]`` int64, left-padded whole episodes.
            mask: ``[B, S]`` bool.
            own: ``[B, K]`` bool, true at the policy's own tokens.
            columns: ``K``, less than ``S``.

        Returns:
            ``[B, K, H]`` float32: column ``t`` has the state before token ``t``.
        """
        return self._read_once(ids[:, :-1], mask[:, :-1])[:, -columns:]

    def state_after(self, ids: Tensor, mask: Tensor, own: Tensor) -> Tensor:
        """The hidden states ``[N, H]`` after prefixes, as :meth:`start` takes them, in one pass and without a cache."""
        return self._read_once(ids, mask)[:, -1]

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The hidden states ``[B, S, H]`` float32 behind every token of ``ids`` ``[B, S]``, left-padded as ``mask`` says."""
        return self._read_once(ids, mask)

    def _read_once(self, ids: Tensor, mask: Tensor) -> Tensor:
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        with self.precision(), recomputing(self._recomputed):
            out = self.model.base_model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
            )
        hidden: Tensor = out.last_hidden_state
        return hidden.float()

    def _read(self, tokens: Tensor, mask: Tensor | None, kept: PromptCache) -> Tensor:
        one_more = tokens.shape[1] == 1 and kept.columns > 0
        attention, positions = kept.admit(mask, tokens.shape[1])
        if not one_more:
            return self._forward(tokens, attention, positions, kept)
        if self._graphs is not None:
            return self._graphs(kept, tokens, positions)
        with one_query_attention():
            flat = None if self.bf16_in_use else self._step(kept.layers(), tokens, positions, attention)
            return self._forward(tokens, attention, positions, kept) if flat is None else flat

    def _forward(self, tokens: Tensor, attention: Tensor | None, positions: Tensor, kept: PromptCache) -> Tensor:
        with self.precision():
            out = self.model.base_model(
                input_ids=tokens,
                attention_mask=attention,
                position_ids=positions,
                past_key_values=kept.cache,
                use_cache=True,
            )
        hidden: Tensor = out.last_hidden_state[:, -1]
        return hidden.float()

    def _new_steps(self) -> None:
        """Forgets recorded steps if the model has other parts than before: adapters, for one."""
        parts = tuple(map(id, self.model.parameters()))
        if parts != self._parts:
            self._parts = parts
            self._step = FlatStep(self.model)
            self._graphs = GraphStep(self.model, lambda: self.bf16_in_use) if self._static else None

    @property
    def bf16_in_use(self) -> bool:
        """Whether products of matrices are in bfloat16."""
        if self.bf16 == "auto":
            return bool(self._output.weight.is_cuda and torch.cuda.is_bf16_supported())
        return bool(self.bf16)

    def _probe(self) -> tuple[Tensor, Tensor]:
        """Last hidden states and logits of two tokens."""
        ids = torch.tensor([[0, 1]], device=self.device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        return self.model.base_model(**inputs).last_hidden_state, self.model(**inputs).logits

    @torch.no_grad()
    def _measured_scale(self) -> float:
        """The factor between hidden states and what the head reads, found by trying, which beats a list of architectures."""
        layer = self._output
        hidden, logits = self._probe()
        logits = logits.float()
        if self._softcap is not None:
            logits = torch.atanh((logits / self._softcap).clamp(-1 + 1e-6, 1 - 1e-6)) * self._softcap
        plain = nn.functional.linear(hidden, layer.weight).float()
        rest = logits if getattr(layer, "bias", None) is None else logits - layer.bias
        scale = float((plain * rest).sum() / (plain * plain).sum().clamp(min=1e-30))
        # what is meant, without the rounding of a measurement, which would differ from weights to weights
        known = (1.0, hidden.shape[-1] ** -0.5, float(f"{scale:.6g}"))
        scale = next(value for value in known if abs(scale - value) <= 1e-3 * abs(value))
        if not torch.allclose(scale * plain, rest, rtol=1e-3, atol=1e-3 * max(1.0, float(rest.abs().max()))):
            raise ModelError(
                "Expected a model whose logits are a linear function of its last hidden states, "
                f"actual: {type(self.model).__name__}"
            )
        return scale


class EncoderDecoderBackbone(Backbone):
    """An encoder-decoder language model without its head. All rows have to be equally far in their completions."""

    def __init__(self, model: PreTrainedModel, vocab_size: int, bf16: bool | str) -> None:
        """See :class:`Backbone`.

        Raises:
            ModelError: The configuration does not name the decoder's first token.
        """
        super().__init__(model, vocab_size, bf16)
        token = getattr(model.config, "decoder_start_token_id", None)
        token = getattr(model.config.get_text_config(decoder=True), "bos_token_id", None) if token is None else token
        if token is None:
            raise ModelError(
                "Expected decoder_start_token_id in the configuration of an encoder-decoder model, actual: None"
            )
        self._start_token = int(token)

    def start(self, ids: Tensor, mask: Tensor, own: Tensor, room: int, rows: int) -> tuple[Tensor, PromptCache]:
        """See :meth:`Backbone.start`.

        Raises:
            ModelError: Some rows have more tokens behind their prompts than others.
        """
        behind = own.long().cummax(-1).values.bool() & mask
        written = int(behind[0].sum())
        if bool((behind.sum(-1) != written).any()):
            raise ModelError(
                "Expected prefixes that are equally far in their completions, for an encoder-decoder model"
            )
        width = ids.shape[1] - written
        kept = PromptCache(self.model.config, len(ids), room, ids.device)
        kept.memory, kept.memory_mask = self._encode(ids[:, :width], mask[:, :width])
        tokens = torch.cat([self._starts(len(ids)), ids[:, width:]], dim=1)
        return self._read(tokens, None, kept), kept

    def extend(self, kept: PromptCache, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """See :meth:`Backbone.extend`.

        Raises:
            ModelError: Some rows get more tokens than others.
        """
        if mask is not None and not bool(mask.all()):
            raise ModelError("Expected as many new tokens in every row, for an encoder-decoder model")
        return self._read(tokens, mask, kept)

    def hidden_states(self, ids: Tensor, mask: Tensor, own: Tensor, columns: int) -> Tensor:
        """See :meth:`Backbone.hidden_states`."""
        whole = torch.cat([own.new_zeros(len(ids), ids.shape[1] - columns), own], dim=1)
        hidden, behind = self._decode(ids, mask, whole)
        back = (behind[:, -columns:].long().cumsum(-1) - 1).clamp(min=0)
        return hidden.gather(1, back[..., None].expand(-1, -1, hidden.shape[-1]))

    def state_after(self, ids: Tensor, mask: Tensor, own: Tensor) -> Tensor:
        """See :meth:`Backbone.state_after`."""
        hidden, behind = self._decode(ids, mask, own)
        last = behind.sum(-1)[:, None, None]
        return hidden.gather(1, last.expand(-1, -1, hidden.shape[-1])).squeeze(1)

    def _decode(self, ids: Tensor, mask: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states ``[B, K + 1, H]`` of the start token and the completions behind it, and where in ``ids`` these are.

        Decoders count positions from the left, so completions are moved there. Padding then stands behind them, where nothing
        looks.
        """
        behind = own.long().cummax(-1).values.bool() & mask
        moved, present = _at_the_left(ids, behind)
        tokens = torch.cat([self._starts(len(ids)), moved[:, : int(present.sum(-1).max())]], dim=1)
        memory, memory_mask = self._encode(ids, mask & ~behind)
        with self.precision(), recomputing(self._recomputed):
            out = self.model.get_decoder()(
                input_ids=tokens,
                encoder_hidden_states=memory,
                encoder_attention_mask=memory_mask,
                use_cache=False,
            )
        return out.last_hidden_state.float(), behind

    def _encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens, present = _at_the_left(ids, mask)  # where encoders count positions from
        width = int(present.sum(-1).max())
        tokens, present = tokens[:, :width], present[:, :width]
        with self.precision(), recomputing(self._recomputed):
            out = self.model.get_encoder()(input_ids=tokens, attention_mask=present, use_cache=False)
        return out.last_hidden_state, present

    def _read(self, tokens: Tensor, mask: Tensor | None, kept: PromptCache) -> Tensor:
        kept.admit(mask, tokens.shape[1])
        with self.precision(), one_query_attention():
            out = self.model.get_decoder()(
                input_ids=tokens,
                encoder_hidden_states=kept.memory,
                encoder_attention_mask=kept.memory_mask,
                past_key_values=kept.cache,
                use_cache=True,
            )
        hidden: Tensor = out.last_hidden_state[:, -1]
        return hidden.float()

    def _starts(self, n: int) -> Tensor:
        return torch.full((n, 1), self._start_token, dtype=torch.long, device=self.device)

    def _probe(self) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([[0, 1]], device=self.device)
        memory = self.model.get_encoder()(input_ids=ids).last_hidden_state
        out = self.model.get_decoder()(input_ids=ids, encoder_hidden_states=memory, use_cache=False)
        return out.last_hidden_state, self.model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits


def backbone_of(model: PreTrainedModel, vocab_size: int, bf16: bool | str, static_shapes: bool = False) -> Backbone:
    """The interface to a model, whichever kind it is; see :class:`Backbone`.

    Raises:
        ModelError: The model does not fit, or is an encoder-decoder model with ``static_shapes``.
    """
    if not model.config.is_encoder_decoder:
        return Backbone(model, vocab_size, bf16, static_shapes)
    if static_shapes:
        raise ModelError("Expected a causal model with static_shapes=True, actual: an encoder-decoder model")
    return EncoderDecoderBackbone(model, vocab_size, bf16)


def _at_the_left(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens ``[B, S]`` where ``mask`` is true, moved to the left of their rows, and where they are now."""
    order = (~mask).to(torch.uint8).argsort(dim=-1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)
