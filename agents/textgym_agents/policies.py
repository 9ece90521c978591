"""Language models as Stable-Baselines3 policies: the model chooses tokens, a linear head values prefixes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from transformers import PreTrainedModel

from textgym.core import expected
from textgym_agents.losses import entropy_of
from textgym_agents.models.adapters import add_lora, merged, value_network_of
from textgym_agents.models.backbone import Backbone, backbone_of
from textgym_agents.models.loading import ModelError, check_fits, disable_dropout, freeze_all_but_last, load_model
from textgym_agents.models.recompute import enable_recomputation
from textgym_agents.models.token_scores import token_scores
from textgym_agents.rollouts.decoding import Limits, beam_search, complete, greedy, sampler
from textgym_agents.rollouts.sampling import Decoding, draw
from textgym_agents.vec_env import is_text_space

if TYPE_CHECKING:
    from textgym_agents.rollouts.buffers import Sequences


class LMPolicy(BasePolicy):
    """A language model of ``transformers``, with a value head on its last hidden state, or on that of a second model.

    It has the interface of SB3's ``ActorCriticPolicy`` (``forward``, ``evaluate_actions``, ``predict_values``), so stock
    algorithms run on it too, reading every prefix again; ours read with a key-value cache and in :meth:`evaluate_sequences`.

    Attributes:
        encoder_decoder: Which kind of model it takes.
        model: The language model. Dropout is off, so that a log-probability means one thing.
        backbone: The same without its head, for whoever wants hidden states.
        value_backbone: Whose hidden states the value head reads: ``backbone``, unless ``share_features_extractor=False``.
        value_head: Linear, from the hidden state to a scalar; starts at 0.
        limits: What the environment allows; used by :meth:`predict` and :meth:`generate`.
    """

    encoder_decoder: ClassVar[bool]
    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        use_sde: bool = False,
        model: str | Path | PreTrainedModel = "bundled",
        trainable_layers: int | None = None,
        lora: dict[str, Any] | bool | None = None,
        share_features_extractor: bool = True,
        gradient_checkpointing: bool = False,
        bf16: bool | str = "auto",
        static_shapes: bool = False,
        limits: Limits | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Loads the model; usually called by an algorithm, with ``policy_kwargs``.

        Args:
            observation_space: Of one of our environments.
            action_space: ``Discrete(V)``.
            lr_schedule: SB3's; its value at 1 is the first learning rate.
            use_sde: Only ``False``; SB3 passes it.
            model: ``"bundled"``, a local folder, a Hub id, or a ``PreTrainedModel``.
            trainable_layers: Train only the last so many layers (and the value head); ``None`` for all.
            lora: Train only low-rank adapters (and the value head): arguments of ``peft.LoraConfig``, those of
                :data:`textgym_agents.models.adapters.LORA_ARGUMENTS`, such as ``{"r": 8, "lora_alpha": 16}``; ``True`` for
                peft's defaults, ``None`` for no adapters. The model is changed in place. The reference of an algorithm is then
                the model without them, which takes no memory.
            share_features_extractor: Whether the value head reads the policy's own hidden states (SB3's name for it). If not,
                it reads those of a copy of the model, trained beside it, which shares only weights that are not trained.
            gradient_checkpointing: Keep only the input of every layer for the gradients, and compute the rest again: less
                memory and the same gradients, for about a third more time in updates. Rollouts are as before.
            bf16: Compute in bfloat16 (weights stay float32). ``"auto"``: on a GPU that can.
            static_shapes: Decode in shapes that do not change, which a GPU replays as a CUDA graph. Takes more memory, and pays
                where launching kernels takes longer than running them. For causal models with full attention.
            limits: See the class; ``None``: any token, as long as an observation has room.
            optimizer_class: Default AdamW.
            optimizer_kwargs: Passed to it; default no weight decay, fused.

        Raises:
            ModelError: The model cannot be loaded, does not fit the spaces, or cannot do what is asked for; or peft is missing.
            TypeError, ValueError: Another argument is bad, or does not go with the others.
        """
        if not is_text_space(observation_space) or not isinstance(action_space, spaces.Discrete):
            raise ModelError(
                "Expected an environment of textgym (observations with input_ids, attention_mask and completion_mask, "
                f"actions Discrete), actual: {observation_space} and {action_space}"
            )
        if use_sde:
            raise ValueError(expected("use_sde", use_sde, "False: tokens are discrete"))
        if bf16 not in (True, False, "auto"):
            raise ValueError(expected("bf16", bf16, "True, False or 'auto'"))
        for name, flag in {
            "share_features_extractor": share_features_extractor,
            "gradient_checkpointing": gradient_checkpointing,
        }.items():
            if not isinstance(flag, bool):
                raise ValueError(expected(name, flag, "True or False"))
        lora = lora if lora is not False else None
        if lora is not None and trainable_layers is not None:
            raise ValueError(
                expected("trainable_layers", trainable_layers, "None with `lora`, which freezes every layer")
            )
        # fused: one kernel for all weights, on a CPU too
        kwargs = {"weight_decay": 0.0, "fused": True} if optimizer_class is torch.optim.AdamW else {}
        super().__init__(
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=kwargs | (optimizer_kwargs or {}),
        )
        self.vocab_size = int(action_space.n)
        width = observation_space["input_ids"].shape[0]  # type: ignore[index]
        self.model = load_model(model, self.encoder_decoder)
        check_fits(self.model, self.vocab_size, width)
        disable_dropout(self.model)
        self.model.requires_grad_(True)
        if trainable_layers is not None:
            freeze_all_but_last(self.model, trainable_layers)
        if lora is not None:
            add_lora(self.model, lora)
        if gradient_checkpointing:
            enable_recomputation(self.model)
        self.trainable_layers, self.lora, self.bf16 = trainable_layers, lora, bf16
        self.share_features_extractor, self.gradient_checkpointing = share_features_extractor, gradient_checkpointing
        self.backbone = self.value_backbone = backbone_of(self.model, self.vocab_size, bf16, static_shapes)
        if not share_features_extractor:
            self.value_model = value_network_of(self.model)
            self.value_backbone = backbone_of(self.value_model, self.vocab_size, bf16)
        self.value_head = nn.Linear(self.model.get_output_embeddings().weight.shape[1], 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.limits = limits or Limits(self.vocab_size, _end_token_of(self.model), width)
        self.generator: torch.Generator | None = None
        self._add_heads(self.value_head.in_features)
        trained = [p for p in self.parameters() if p.requires_grad]
        self.optimizer = self.optimizer_class(trained, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _add_heads(self, width: int) -> None:
        """The place for what else is to be trained on hidden states of this width."""

    def evaluate_sequences(
        self, batch: Sequences, temperature: float, *, backbone: Backbone | None = None, entropies: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One teacher-forced pass over whole episodes.

        Logits are computed only where the policy chose a token, and never all of them at once.

        Args:
            batch: Episodes, on the policy's device.
            temperature: That they were drawn with.
            backbone: Another model to ask instead of the policy's own (a reference model).
            entropies: Whether to compute them; otherwise they are 0.

        Returns:
            Log-probabilities of the tokens on the support that they were drawn from, values of the states in which they were
            chosen (0 with another model), entropies in nats; ``[B, T]`` each, 0 where the policy chose no token.
        """
        used, mask = backbone or self.backbone, batch.action_mask
        hidden, tokens = chosen_in(batch, used)
        found = token_scores(hidden, used.head, tokens, batch.support(), temperature, entropies)
        empty = torch.zeros(mask.shape, device=mask.device)
        if backbone is not None:  # the value head cannot read its hidden states, which may have another width
            values = empty
        elif self.share_features_extractor:
            values = empty.masked_scatter(mask, self.value_head(hidden).squeeze(-1))
        else:
            values = self.evaluate_values(batch)
        log_probs, spread = (empty.masked_scatter(mask, x) for x in found)
        return log_probs, values, spread

    def evaluate_values(self, batch: Sequences) -> Tensor:
        """Values of the states in which tokens were chosen, as :meth:`evaluate_sequences` returns them, and nothing else."""
        mask = batch.action_mask
        hidden = self.value_backbone.hidden_states(batch.input_ids, batch.attention_mask, mask, mask.shape[1])[mask]
        return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, self.value_head(hidden).squeeze(-1))

    # ---- the interface of SB3's ActorCriticPolicy, one prefix at a time ---------------------------------------------

    def _read(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Next-token log-probabilities ``[B, V]`` and values ``[B, 1]`` of observations."""
        prefixes = _prefixes(obs)
        hidden = self._hidden(*prefixes)
        values = self.value_head(hidden) if self.share_features_extractor else self.predict_values(obs)
        logits = self.limits.support(prefixes[2].sum(-1)).restrict_(self.backbone.logits(hidden).clone())
        return logits.log_softmax(-1), values

    def _hidden(self, ids: Tensor, mask: Tensor, own: Tensor, backbone: Backbone | None = None) -> Tensor:
        """Hidden states ``[B, H]`` after prefixes ``[B, S]``, read in one pass."""
        used = int(mask.sum(-1).max())
        return (backbone or self.backbone).state_after(ids[:, -used:], mask[:, -used:], own[:, -used:])

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions ``[B]``, values ``[B, 1]`` and log-probabilities ``[B]`` for observations."""
        log_probs, values = self._read(obs)
        actions = log_probs.argmax(-1) if deterministic else draw(log_probs, self.generator)
        return actions, values, log_probs.gather(-1, actions[:, None]).squeeze(-1)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values ``[B, 1]``, log-probabilities ``[B]`` of ``actions`` and entropies ``[B]``."""
        log_probs, values = self._read(obs)
        return values, log_probs.gather(-1, actions.long().view(-1, 1)).squeeze(-1), entropy_of(log_probs)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values ``[B, 1]`` of observations."""
        values: Tensor = self.value_head(self._hidden(*_prefixes(obs), self.value_backbone))
        return values

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self.forward(observation, deterministic)[0]

    # ---- for whoever uses a trained policy --------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        action_masks: np.ndarray | None = None,
        decoding: Decoding | None = None,
        num_beams: int = 1,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The next token.

        Args:
            observation: One observation or a batch.
            state: Returned as it came; the policy has none.
            episode_start: Not used.
            deterministic: The most likely token instead of a drawn one.
            action_masks: Bool ``(V,)`` or ``(n, V)``; ``None``: what ``limits`` allow.
            decoding: Temperature, top-k and top-p of the draw.
            num_beams: Above 1: the first token of the completion that a beam search of this width finds.

        Returns:
            Tokens (a number for one observation, ``(n,)`` for a batch) and ``state``.

        Raises:
            ValueError: ``observation`` has other keys or shapes than the observation space, or no token at all; or another
                argument is bad.
        """
        self.set_training_mode(False)
        ids, attention, own, single = self._tensors(observation)
        written = own.sum(-1)
        if num_beams != 1:
            # an episode that has used up its budget has no next token; give it one to spend, for callers that ask anyway
            left = written.clamp(max=self.limits.max_new_tokens - 1)
            first = None if action_masks is None else self._mask_tensor(action_masks, len(ids))
            tokens = torch.zeros(len(ids), dtype=torch.long)
            for rows in self._alike(own):
                forced = None if first is None else first[rows]
                found = beam_search(
                    self, ids[rows], attention[rows], left[rows], self.limits, num_beams, 1.0, forced, own[rows]
                )
                tokens[rows.cpu()] = torch.tensor([completion[0] for completion in found])
        else:
            mask = self.limits.mask(written) if action_masks is None else self._mask_tensor(action_masks, len(ids))
            logits = self.backbone.logits(self._hidden(ids, attention, own))
            choose = greedy if deterministic else sampler(decoding or Decoding(), self.generator)
            tokens = choose(logits, mask)
        array = tokens.cpu().numpy()
        return (array[0] if single else array), state

    @torch.no_grad()
    def generate(
        self,
        prompts: list[list[int]],
        deterministic: bool = False,
        decoding: Decoding | None = None,
        num_beams: int = 1,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """Completions of prompts, all tokens at once and with a key-value cache.

        Args:
            prompts: Token ids of each prompt.
            deterministic: Greedy instead of sampling.
            decoding: Temperature, top-k and top-p of the draws.
            num_beams: Above 1: beam search of this width.
            generator: Source of randomness; the policy's own if ``None``.

        Returns:
            New token ids of each prompt, the end token included if it came.

        Raises:
            ValueError: A prompt without tokens, with one that the vocabulary lacks, or too long for the model's context; or
                another argument is bad.
        """
        self.set_training_mode(False)
        if not prompts:
            return []
        width = max(len(p) for p in prompts)
        self._check_prompts(prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), True
        ids, mask = ids.to(self.device), mask.to(self.device)
        if num_beams != 1:
            return beam_search(self, ids, mask, torch.zeros_like(ids[:, 0]), self.limits, num_beams)
        choose = greedy if deterministic else sampler(decoding or Decoding(), generator or self.generator)
        return complete(self, ids, mask, self.limits, choose)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the language model, without the value head and with adapters merged, as ``transformers`` reads it."""
        self.plain_model().save_pretrained(str(folder))

    def plain_model(self) -> PreTrainedModel:
        """The language model as ``transformers`` knows it: :attr:`model`, or with LoRA a copy whose adapters are merged."""
        return self.model if self.lora is None else merged(self.model)

    def _check_prompts(self, prompts: list[list[int]]) -> None:
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for prompt in prompts:
            if not prompt or not all(0 <= token < self.vocab_size for token in prompt):
                raise ValueError(expected("prompts", prompt, f"lists of at least one token in [0, {self.vocab_size})"))
            if most is not None and len(prompt) + self.limits.max_new_tokens > most:
                raise ValueError(
                    f"Expected prompts of at most {most - self.limits.max_new_tokens} tokens (the model's context of {most} "
                    f"less max_new_tokens={self.limits.max_new_tokens}), actual: {len(prompt)}"
                )

    def _tensors(self, observation: Any) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Token ids, attention and completion mask, trimmed to what is used, and whether it was a single observation."""
        width = self.observation_space["input_ids"].shape[0]  # type: ignore[index]
        keys = ("input_ids", "attention_mask", "completion_mask")
        if not isinstance(observation, dict) or not set(keys) <= set(observation):
            raise ValueError(expected("observation", observation, f"a dict with {keys}"))
        arrays = [np.asarray(observation[key]) for key in keys]
        if any(a.ndim not in (1, 2) or a.shape != arrays[0].shape or a.shape[-1] != width for a in arrays):
            raise ValueError(
                f"Expected observation arrays of shape ({width},) or (n, {width}), actual: {[a.shape for a in arrays]}"
            )
        if arrays[0].size == 0 or not np.issubdtype(arrays[0].dtype, np.integer):
            raise ValueError(expected("observation['input_ids']", arrays[0], "integers, of at least one observation"))
        if int(arrays[0].min()) < 0 or int(arrays[0].max()) >= self.vocab_size:
            raise ValueError(expected("observation['input_ids']", arrays[0], f"tokens in [0, {self.vocab_size})"))
        ids, attention, own = (torch.as_tensor(np.atleast_2d(a), device=self.device) for a in arrays)
        if not bool(attention.any(-1).all()):
            raise ValueError("Expected at least one token in every observation, but an attention_mask is 0 everywhere")
        start = width - int(attention.sum(-1).max())
        return ids.long()[:, start:], attention.bool()[:, start:], own.bool()[:, start:], arrays[0].ndim == 1

    def _alike(self, own: Tensor) -> list[Tensor]:
        """Rows that can be decoded beside each other: all, but equally far ones where there is an encoder."""
        if not self.encoder_decoder:
            return [torch.arange(len(own), device=own.device)]
        columns = own.shape[1] - own.int().argmax(-1)
        behind = torch.where(own.any(-1), columns, torch.zeros_like(columns))
        return [(behind == n).nonzero().squeeze(-1) for n in behind.unique()]

    def _mask_tensor(self, action_masks: np.ndarray, n: int) -> Tensor:
        array = np.atleast_2d(np.asarray(action_masks, dtype=np.bool_))
        if array.shape not in ((n, self.vocab_size), (1, self.vocab_size)):
            raise ValueError(
                f"Expected action_masks of shape ({n}, {self.vocab_size}), actual: {np.shape(action_masks)}"
            )
        if not array.any(-1).all():
            raise ValueError(
                f"Expected action_masks that allow a token, but row {int(array.any(-1).argmin())} allows none"
            )
        return torch.as_tensor(array, device=self.device).expand(n, -1)


class CausalLMPolicy(LMPolicy):
    """Any causal language model of ``transformers``: GPT-2, Llama, Qwen and their kin."""

    encoder_decoder = False


class Seq2SeqLMPolicy(LMPolicy):
    """Any encoder-decoder language model of ``transformers``: T5, BART and their kin.

    The encoder reads the prompt, the decoder writes the completion; ``completion_mask`` tells them apart. Tasks in which
    somebody replies need a :class:`CausalLMPolicy`. ``model`` has to be given: none is bundled.
    """

    encoder_decoder = True


def _prefixes(obs: PyTorchObs) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention and completion mask ``[B, L]`` of observations."""
    assert isinstance(obs, dict)
    return obs["input_ids"].long(), obs["attention_mask"].bool(), obs["completion_mask"].bool()


def chosen_in(batch: Sequences, backbone: Backbone) -> tuple[Tensor, Tensor]:
    """The hidden states ``[N, H]`` in which the policy's tokens were chosen, in one pass, and the tokens ``[N]``."""
    mask = batch.action_mask
    hidden = backbone.hidden_states(batch.input_ids, batch.attention_mask, mask, mask.shape[1])
    return hidden[mask], batch.input_ids[:, -mask.shape[1] :][mask]


def _end_token_of(model: PreTrainedModel) -> int:
    """The end token that a model's configuration names (its first, if it names several; 0, if none)."""
    named = model.config.get_text_config().eos_token_id
    return int((named[0] if isinstance(named, list) else named) or 0)
