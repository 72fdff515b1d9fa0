"""Prompts to text states with a backbone's own tokenizers and encoders.

Unlike diffusers' pipeline, nothing is padded, and the user's words are found in the rendered chat
template instead of cropping a fixed count of tokens that is right for one tokenizer only.
"""

import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.errors import ConfigError
from dreambooth3d.model.texts import TextStates

# Whitespace as in the template the backbone was trained with.
SYSTEM_MESSAGE = (
    "You are a helpful assistant. Describe the video by detailing the following aspects: "
    "        1. The main content and theme of the video. "
    "        2. The color, shape, size, texture, quantity, text, and spatial relationships of the "
    "objects.         3. Actions, events, behaviors temporal relationships, physical movement "
    "changes of the objects.         4. background environment, light, style and atmosphere. "
    "        5. camera angles, movements, and transitions used in the video."
)
HIDDEN_STATE = -3
# Stands where the user's words go: short words such as "a" also occur in the template itself.
_PLACE = "\x00"
MAX_TEXT_TOKENS = 1000
MAX_GLYPH_TOKENS = 256
_QUOTED = re.compile(r"\"(.*?)\"|“(.*?)”")


@dataclass(frozen=True)
class MarkedPrompt:
    """A prompt without its brackets, and the character range they marked."""

    text: str
    span: tuple[int, int] | None


def split_brackets(prompt: str) -> MarkedPrompt:
    """Take the [brackets] out of a prompt; they mark the words that name the subject.

    Raises:
        ConfigError: brackets are unbalanced, nested, empty, or there is more than one pair.
    """
    opens, closes = prompt.count("["), prompt.count("]")
    if opens == closes == 0:
        return MarkedPrompt(prompt, None)
    start, end = prompt.find("["), prompt.find("]")
    if (opens, closes) != (1, 1) or end < start or not prompt[start + 1 : end].strip():
        raise ConfigError(
            f"a prompt must hold at most one [trigger class] pair of brackets, got {prompt!r}; "
            "write for example: a video of a [sks mug] on a desk"
        )
    inner = prompt[start + 1 : end]
    return MarkedPrompt(prompt[:start] + inner + prompt[end + 1 :], (start, start + len(inner)))


def quoted_words(prompt: str) -> str | None:
    """Build ByT5's input from the "quoted" words, in the backbone's own phrase; None without."""
    words = list(dict.fromkeys(a or b for a, b in _QUOTED.findall(prompt)))
    return ". ".join(f'Text "{word}"' for word in words) + ". " if words else None


def rare_words(tokenizer: Any, *, lengths: Collection[int] = (3, 4)) -> tuple[str, ...]:
    """List lowercase words of one token each, the latest learned, so the rarest, first."""
    found = []
    for number in range(len(tokenizer) - 1, -1, -1):
        # The space in front of a word belongs to its token.
        text: str = tokenizer.decode([number])
        word = text.removeprefix(" ")
        if word != text and len(word) in lengths and word.isascii() and word.islower():
            found.append(word)
    return tuple(word for word in found if word.isalpha())


def words_in_span(tokenizer: Any, prompt: str) -> str:
    """Read back the words of the tokens that the brackets of a prompt cover; "" without any."""
    ids, start, span = _tokenize(tokenizer, split_brackets(prompt))
    if span is None:
        return ""
    words: str = tokenizer.decode(ids[start + span[0] : start + span[1]])
    return words.strip()


class PromptEncoder:
    """Encode prompts, once each: results are cached by text (bounded, safe from several threads).

    Args:
        tokenizer, text_encoder: the chat model (Qwen2.5-VL's text half in the full backbone).
        glyph_tokenizer, glyph_encoder: ByT5 for quoted words.
        max_bytes: memory of the prompts that are remembered.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        text_encoder: Any,
        glyph_tokenizer: Any,
        glyph_encoder: Any,
        max_bytes: int = 2**30,
    ) -> None:
        self.tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._glyph_tokenizer = glyph_tokenizer
        self._glyph_encoder = glyph_encoder
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._cache: OrderedDict[str, TextStates] = OrderedDict()
        self._lock = Lock()

    def __call__(self, prompt: str) -> TextStates:
        """Encode one prompt; [brackets] set `span` and are not part of the text."""
        with self._lock:
            found = self._cache.get(prompt)
            if found is not None:
                self._cache.move_to_end(prompt)
                return found
        states = self._encode(split_brackets(prompt))
        with self._lock:
            if prompt not in self._cache:
                self._cache[prompt] = states
                self._num_bytes += states.num_bytes
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._cache.popitem(last=False)[1].num_bytes
        return states

    @torch.no_grad()
    def _encode(self, prompt: MarkedPrompt) -> TextStates:
        ids, start, span = _tokenize(self.tokenizer, prompt)
        hidden = self._text_encoder(
            input_ids=torch.tensor([ids], device=self._text_encoder.device),
            output_hidden_states=True,
        ).hidden_states
        glyphs = quoted_words(prompt.text)
        return TextStates(
            states_SD=hidden[HIDDEN_STATE][0, start:],
            glyphs_GD=None if glyphs is None else self._encode_glyphs(glyphs),
            span=span,
        )

    def _encode_glyphs(self, text: str) -> Tensor:
        ids = self._glyph_tokenizer(
            text, truncation=True, max_length=MAX_GLYPH_TOKENS, return_tensors="pt"
        ).input_ids.to(self._glyph_encoder.device)
        states: Tensor = self._glyph_encoder(input_ids=ids)[0][0]
        return states


def _tokenize(
    tokenizer: Any, prompt: MarkedPrompt
) -> tuple[list[int], int, tuple[int, int] | None]:
    """Token ids, the first token that is kept, and the span among kept tokens."""
    text = prompt.text if prompt.text else " "
    at = _render(tokenizer, _PLACE).index(_PLACE)
    rendered = _render(tokenizer, text)
    encoded = tokenizer(rendered, return_offsets_mapping=True, add_special_tokens=False)
    offsets: list[tuple[int, int]] = encoded["offset_mapping"]
    start = next(i for i, (_, end) in enumerate(offsets) if end > at)
    ids: list[int] = encoded["input_ids"][: start + MAX_TEXT_TOKENS]
    span = None
    if prompt.span is not None:
        first, last = prompt.span[0] + at, prompt.span[1] + at
        inside = [
            i - start for i, (a, b) in enumerate(offsets[: len(ids)]) if a < last and b > first
        ]
        span = (inside[0], inside[-1] + 1) if inside else None
    return ids, start, span


def _render(tokenizer: Any, text: str) -> str:
    messages = [
        {"role": "system", "content": SYSTEM_MESSAGE},
        {"role": "user", "content": text},
    ]
    rendered: str = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    return rendered
