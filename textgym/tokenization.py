"""One small face for every kind of tokenizer, so that environments need neither transformers nor torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, pre_tokenizers

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
        self._bytes: npt.NDArray[np.object_] | None = None  # (V,), of a byte-level tokenizer
        if isinstance(source, FastTokenizer):
            if source.padding or source.truncation:  # would put padding into prompts, or cut them without a word
                source = FastTokenizer.from_str(source.to_str())
                source.no_padding()
                source.no_truncation()
            self._fast: FastTokenizer | None = source
            vocabulary = source.get_vocab(with_added_tokens=True)
            eos = next((i for t in _END_TOKENS if (i := source.token_to_id(t)) is not None), None)
            pad = next((i for t in _PAD_TOKENS if (i := source.token_to_id(t)) is not None), None)
            self._special = {i for i, token in source.get_added_tokens_decoder().items() if token.special}
            if isinstance(source.decoder, decoders.ByteLevel):
                self._bytes = _bytes_of_tokens(source, vocabulary)
        elif hasattr(source, "convert_ids_to_tokens") and hasattr(source, "eos_token_id"):
            self._fast = None
            vocabulary = source.get_vocab()
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
        self.vocab_size = max(vocabulary.values()) + 1  # not the number of tokens: ids may have gaps
        self._anchor = self._find_anchor()

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without special tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text, without special tokens."""
        if self._fast is not None:
            return [e.ids for e in self._fast.encode_batch(list(texts), add_special_tokens=False)]
        return [list(ids) for ids in self.source(list(texts), add_special_tokens=False)["input_ids"]] if texts else []

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer], *, continues: bool = False) -> str:
        """Text of token ids; special tokens are left out. See :meth:`decode_batch`."""
        return self.decode_batch([[int(i) for i in ids]], continues=continues)[0]

    def decode_batch(self, batch: Sequence[Sequence[int]], *, continues: bool = False) -> list[str]:
        """Texts of lists of token ids; special tokens are left out.

        Args:
            batch: Lists of token ids.
            continues: Whether the tokens go on from a text, as a completion does. Many tokenizers drop the space before
                the first word when they decode; with ``continues`` it stays, so that prompt and completion join.
        """
        if continues and self._anchor:
            start = len(self.decode(self._anchor))
            return [text[start:] for text in self.decode_batch([[*self._anchor, *ids] for ids in batch])]
        if self._fast is not None:
            return self._fast.decode_batch(batch, skip_special_tokens=True)
        kept = [[i for i in ids if i not in self._special] for ids in batch]
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return [str(self.source.decode(ids, **options)) for ids in kept]

    def decode_rows(self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> list[str]:
        """What ``decode_batch(..., continues=True)`` makes of the beginnings of rows; several times faster if byte-level.

        Args:
            ids: Token ids in ``[0, V)``, shape ``(n, T)``.
            lengths: How many of each row count, shape ``(n,)``.
        """
        counts = lengths.tolist()
        if self._bytes is None or self._anchor:
            rows = [row[:count] for row, count in zip(ids.tolist(), counts, strict=True)]
            return self.decode_batch(rows, continues=True)
        pieces = self._bytes[ids].tolist()
        return [b"".join(row[:count]).decode(errors="replace") for row, count in zip(pieces, counts, strict=True)]

    def _find_anchor(self) -> list[int]:
        """A token to put before those that continue a text, if decoding them by themselves gives something else."""
        ids = self.encode("a b")
        first, rest = ids[:1], ids[1:]
        return first if self.decode(first) and self.decode(first) + self.decode(rest) != self.decode(ids) else []

    def tokens(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """The text of every token by itself, special tokens by name; for display."""
        names = []
        for i in map(int, ids):
            if i not in self._special:
                names.append(self.decode([i], continues=True))
            elif self._fast is not None:
                names.append(str(self._fast.id_to_token(i)))
            else:
                names.append(str(self.source.convert_ids_to_tokens(i)))
        return names


def _bytes_of_tokens(source: FastTokenizer, vocabulary: Mapping[str, int]) -> npt.NDArray[np.object_]:
    """The bytes that each token of a byte-level tokenizer stands for, none for special tokens and gaps, shape ``(V,)``.

    Joined and read as UTF-8, they give what the tokenizer decodes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # 256 letters: visible bytes stand for themselves
    byte_of = {letter: ord(letter) for letter in alphabet if ord(letter) < 256}
    byte_of.update(zip(alphabet[len(byte_of) :], (b for b in range(256) if chr(b) not in byte_of), strict=True))
    special = {token.content for token in source.get_added_tokens_decoder().values() if token.special}
    found = np.full(max(vocabulary.values()) + 1, b"", dtype=object)
    for i in set(vocabulary.values()):
        token = source.id_to_token(i) or ""
        if token not in special:
            try:
                found[i] = bytes(map(byte_of.__getitem__, token))
            except KeyError:  # an added token with a letter that is none of these: it stands for itself
                found[i] = token.encode()
    return found


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
    if os.path.isfile(folder / "tokenizer.json") and not _names_other_specials(folder):
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
        tokenizer = TextTokenizer(AutoTokenizer.from_pretrained(name))
        if not tokenizer.encode("text"):  # what transformers makes of a model's folder that has no tokenizer in it
            raise TokenizerError(
                f"Expected {name!r} to hold a tokenizer, but it has none: it turns 'text' into no token"
            )
        return tokenizer
    except TokenizerError:
        raise
    except Exception as error:
        kind = (
            "folder"
            if os.path.exists(name)
            else "local folder (there is none of this name) or Hub id (needs the network)"
        )
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TokenizerError(
            f"Could not load the tokenizer {name!r} as a {kind}: {reason}. "
            "Offline choices: 'bundled', a folder that holds a tokenizer, a tokenizers.Tokenizer, a PreTrainedTokenizerBase"
        ) from error
