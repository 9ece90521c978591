"""A text scorer on top of any encoder of transformers that reads the mean over all tokens; needs torch and transformers.

Their own heads of BERT and its kin read the first token alone, which sentence encoders such as MiniLM were not trained to
sum a text up in.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanPooledClassifier(PreTrainedModel):
    """Encoder, mean of the last hidden states over the tokens that are no padding, dropout, one linear layer.

    The mean is that of Sentence-BERT (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3). The
    configuration is the encoder's own; ``architectures`` in it says that this class wrote the weights.
    """

    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config: PreTrainedConfig) -> None:
        """Args: config: Of the encoder, with ``num_labels`` ``K``."""
        super().__init__(config)
        own = copy.deepcopy(config)  # an encoder may note in its configuration how it attends, which is its own affair
        self.encoder = AutoModel.from_config(own, trust_remote_code=False)
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None  # it reads the first token, and nothing would train it
        self._takes_types = "token_type_ids" in inspect.signature(self.encoder.forward).parameters
        self.dropout = nn.Dropout(getattr(config, "hidden_dropout_prob", 0.0))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """``input_ids``, ``attention_mask`` and ``token_type_ids`` ``[B, T]`` to ``logits`` ``[B, K]``."""
        types = {"token_type_ids": token_type_ids} if self._takes_types and token_type_ids is not None else {}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types, **kwargs).last_hidden_state
        weights = attention_mask[..., None].to(states.dtype)  # [B, T, 1]
        pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1)  # [B, C]
        logits: torch.FloatTensor = self.classifier(self.dropout(pooled))
        return SequenceClassifierOutput(logits=logits)
