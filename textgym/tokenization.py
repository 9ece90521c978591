"""One small face for every kind of tokenizer, so that environments need neither transformers nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as FastTokenizer

from textgym.core import TextGymError, expected

ASSETS = Path(__file__).parent / "assets"
"""The folder of the bundled tokenizer and model; ``transformers`` loads both from it."""

_END_TOKENS = ("<|endoftext|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>", "<end_of_turn>", "[SEP]")
_PAD_TOKENS = ("<|pad|>", "<pad>", "[PAD]", "<|endoftext|>")


class TokenizerError(TextGymError, ValueError):
    """A tokenizer could not be loaded, or lacks what an environment needs."""


class TextTokenizer:
    """Text to token ids and back.

    Attributes:
        vocab_size: Number of tokens ``V``, added ones included; ids are in ``[0, V)``.
        eos_token_id: The end token.
        pad_token_id: Fills the left of an observation; the end token where the tokenizer has no padding token.
        source: The tokenizer that was wrapped.
    """

    def __init__(self, source: Any) -> None:
        """Args: source: A ``tokenizers.Tokenizer``, or a tokenizer of transformers (``PreTrainedTokenizerBase``).

        Raises:
            TypeError: Something else.
            TokenizerError: It has no end token.
        """
        self.source = source
        if isinstance(source, FastTokenizer):
            self._fast: FastTokenizer | None = source
            self.vocab_size = source.get_vocab_size(with_added_tokens=True)
            eos = next((i for t in _END_TOKENS if (i := source.token_to_id(t)) is not None), None)
            pad = next((i for t in _PAD_TOKENS if (i := source.token_to_id(t)) is not None), None)
            self._special = {i for i, token in source.get_added_tokens_decoder().items() if token.special}
        elif hasattr(source, "convert_ids_to_tokens") and hasattr(source, "eos_token_id"):
            self._fast = None
            self.vocab_size = len(source)
            eos, pad = source.eos_token_id, source.pad_token_id
            self._special = set(source.all_special_ids)
        else:
            raise TypeError(
                expected(
                    "tokenizer",
                    source,
                    "'bundled', a folder, a Hub id, a tokenizers.Tokenizer or a PreTrainedTokenizerBase",
                )
            )
        if eos is None:
            raise TokenizerError(
                f"Expected a tokenizer with an end token, one of {_END_TOKENS} or `eos_token`; it has none"
            )
        self.eos_token_id = int(eos)
        self.pad_token_id = int(eos if pad is None else pad)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without special tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text, without special tokens."""
        if self._fast is not None:
            return [e.ids for e in self._fast.encode_batch(list(texts), add_special_tokens=False)]
        return [list(ids) for ids in self.source(list(texts), add_special_tokens=False)["input_ids"]] if texts else []

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> str:
        """Text of token ids; special tokens are left out."""
        kept = [int(i) for i in ids if int(i) not in self._special]
        if self._fast is not None:
            return str(self._fast.decode(kept, skip_special_tokens=True))
        return str(self.source.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def tokens(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """The text of every token by itself, special tokens by name; for display."""
        names = []
        for i in map(int, ids):
            if i not in self._special:
                names.append(self.decode([i]))
            elif self._fast is not None:
                names.append(str(self._fast.id_to_token(i)))
            else:
                names.append(str(self.source.convert_ids_to_tokens(i)))
        return names


def load_tokenizer(tokenizer: object = "bundled") -> TextTokenizer:
    """The tokenizer that ``tokenizer`` stands for.

    Args:
        tokenizer: ``"bundled"``; a local folder (``tokenizer.json``, or anything transformers reads); a Hub id; a
            ``tokenizers.Tokenizer``; a ``PreTrainedTokenizerBase``; or a :class:`TextTokenizer`.

    Raises:
        TokenizerError: The folder or the Hub id cannot be read; the message names the offline choices.
        TypeError: Something else.
    """
    if isinstance(tokenizer, TextTokenizer):
        return tokenizer
    if isinstance(tokenizer, Path):
        tokenizer = str(tokenizer)
    if not isinstance(tokenizer, str):
        return TextTokenizer(tokenizer)
    folder = ASSETS if tokenizer == "bundled" else Path(tokenizer)
    if folder.is_dir() and (folder / "tokenizer.json").is_file() and not _names_other_specials(folder):
        try:
            return TextTokenizer(FastTokenizer.from_file(str(folder / "tokenizer.json")))
        except TokenizerError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise TokenizerError(
                f"Could not read {str(folder / 'tokenizer.json')!r} as a tokenizer: {error}"
            ) from error
    return _from_transformers(tokenizer)


def _names_other_specials(folder: Path) -> bool:
    """Whether the folder's own configuration says which tokens end and pad, and so has to be read by transformers."""
    return folder != ASSETS and (folder / "tokenizer_config.json").is_file()


def _from_transformers(name: str) -> TextTokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise TokenizerError(
            f"Loading the tokenizer {name!r} needs transformers: pip install 'textgym[hub]'; tokenizer='bundled' needs nothing"
        ) from error
    try:
        return TextTokenizer(AutoTokenizer.from_pretrained(name))
    except TokenizerError:
        raise
    except Exception as error:
        kind = (
            "folder"
            if Path(name).exists()
            else "local folder (there is none of this name) or Hub id (needs the network)"
        )
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TokenizerError(
            f"Could not load the tokenizer {name!r} as a {kind}: {reason}. "
            "Offline choices: 'bundled', a folder that holds a tokenizer, a tokenizers.Tokenizer, a PreTrainedTokenizerBase"
        ) from error
