"""Captions of targets: as given, from a template, or by a vision-language model."""

import hashlib
import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias

from PIL import Image

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.pairs.inference import PinnedModel
from dreambooth3d.pairs.letters import one_line
from dreambooth3d.vision.refusal import RefusedError
from dreambooth3d.vision.threads import one_thread

CaptionKind: TypeAlias = Literal["given", "template", "model"]

MAX_CHARS = 1000
# A cut at a sentence must leave this part of what fits: "Mr." is no caption.
_FEWEST_KEPT = 4
_INSTRUCTION = (
    "Describe this photo in one sentence: the main object, where it is, and what is around it. "
    "Name no brand, and do not start with 'the image shows'."
)
# What tables and exporters write where they have nothing.
_NOTHING = frozenset({"nan", "none", "null", "n/a", "undefined"})
_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？]")
_UNDECODED = "\ufffd"
# A prompt marks its subject in square brackets, so a caption must not have any.
_BRACKETS = str.maketrans("[]", "()")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption, and where it comes from."""

    text: str
    kind: CaptionKind


class Captioner(Protocol):
    """Describes a picture; the same picture always gets the same words."""

    def __call__(self, picture: Image.Image) -> str:
        """Return a description; it is cleaned afterwards."""

    def fingerprint(self) -> str:
        """A hash that changes when the words may change."""


def describe_target(picture: Image.Image, captioner: Captioner) -> Caption:
    """Caption a target by looking at it.

    Raises:
        RefusedError: `bad_caption`, when the captioner says nothing.
    """
    text = clean_caption(captioner(picture))
    if not text:
        raise RefusedError(
            "bad_caption", "caption of a model must have words, got none; use another model"
        )
    return Caption(text=text, kind="model")


def choose_caption(given: object, class_noun: str) -> Caption:
    """Take the given caption if it has words, else the template.

    Raises:
        RefusedError: `bad_caption`, when neither can be had.
    """
    if text := clean_caption(given):
        return Caption(text=text, kind="given")
    if noun := clean_caption(class_noun):
        return Caption(text=template_caption(noun), kind="template")
    raise RefusedError(
        "bad_caption",
        f"caption must have words, or the class must be known, got {shortened(given)}; "
        "add a caption, or class_noun in metadata.json, or name its folder so",
    )


def template_caption(class_noun: str) -> str:
    """Return `a photo of a {class_noun}`."""
    article = "an" if class_noun[:1].lower() in "aeiou" else "a"
    return f"a photo of {article} {class_noun}"


def clean_caption(given: object, *, max_chars: int = MAX_CHARS) -> str:
    """Return readable text on one line, or the empty string when there are no words.

    Control and invisible characters go, any white space becomes one space, square brackets become
    round, and what is longer than `max_chars` ends with its last whole sentence, or its last word
    where sentences are too long.

    Raises:
        RefusedError: `bad_caption`, when it is neither text nor a missing value (None, NaN).
    """
    if given is None or (isinstance(given, float) and math.isnan(given)):
        return ""
    if not isinstance(given, str):
        raise RefusedError(
            "bad_caption", f"caption must be text, got {type(given).__name__}; write it as text"
        )
    readable = unicodedata.normalize("NFC", one_line(given.replace(_UNDECODED, "")))
    text = _cut(readable.translate(_BRACKETS), max_chars)
    has_words = any(map(str.isalpha, text)) and text.lower() not in _NOTHING
    return text if has_words else ""


def shortened(value: object) -> str:
    """Show a value in a sentence: at most 60 characters, escaped."""
    shown = ascii(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    # One more than fits: a sentence may end exactly at the limit.
    ends = [match.end() for match in _SENTENCE_END.finditer(text[: max_chars + 1])]
    whole = [end for end in ends if max_chars // _FEWEST_KEPT <= end <= max_chars]
    if whole:
        return text[: whole[-1]]
    head = text[: max_chars + 1].rpartition(" ")[0] or text[:max_chars]
    return head.rstrip(" ,;:-–—")


@dataclass(frozen=True, kw_only=True)
class VisionLanguageCaptioner:
    """Describes pictures with a transformers image-text-to-text model, loaded at first use.

    Attributes:
        model: which one; its processor must have a chat template.
        instruction: what it is asked.
        max_new_tokens: longest answer.
        max_side: larger pictures are made smaller first, in pixels.
        device: where it runs; on CPU every run gives the same words.
    """

    model: PinnedModel
    instruction: str = _INSTRUCTION
    max_new_tokens: int = 96
    max_side: int = 768
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.max_side < 32:
            raise ConfigError(
                "max_new_tokens must be at least 1 and max_side at least 32, "
                f"got {self.max_new_tokens} and {self.max_side}; use 96 and 768"
            )
        if not self.instruction.strip():
            raise ConfigError("instruction must be words, got none; leave it out for the default")

    def __call__(self, picture: Image.Image) -> str:
        """Describe one picture, greedily: nothing is drawn at random."""
        import torch

        processor, model = _load(self.model, self.device)
        small = picture.convert("RGB")
        small.thumbnail((self.max_side, self.max_side), Image.Resampling.BICUBIC)
        content = [{"type": "image", "image": small}, {"type": "text", "text": self.instruction}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        ).to(self.device)  # fmt: skip
        with one_thread(), torch.no_grad():
            tokens = model.generate(
                **inputs, do_sample=False, num_beams=1, max_new_tokens=self.max_new_tokens
            )
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return str(processor.decode(answer, skip_special_tokens=True))

    def fingerprint(self) -> str:
        """Hash of the model and of what it is asked."""
        asked = f"{self.instruction}\n{self.max_new_tokens}\n{self.max_side}"
        return hashlib.sha256(f"{self.model.fingerprint()}\n{asked}".encode()).hexdigest()


@lru_cache(maxsize=1)
def _load(pinned: PinnedModel, device: str) -> tuple[Any, Any]:
    """Load a processor and a model."""
    import torch
    from transformers import AutoModelForImageTextToText

    folder = str(pinned.folder())
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        processor = _load_processor(folder)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"captioner must be a transformers image-text-to-text model, got {pinned.source} "
            f"({shortened(str(error))}); choose another model"
        ) from error
    return processor, model.to(device).eval().requires_grad_(False)


def _load_processor(folder: str) -> Any:
    """Load what turns a chat with a picture into tensors."""
    from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    known = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder))]
    if "video_processor" not in known.get_attributes():
        return AutoProcessor.from_pretrained(folder, backend="pil")
    # Its video half needs torchvision even to be loaded; pictures do without.
    without_video = type(known.__name__, (known,), {"check_argument_for_proper_class": _accept})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return without_video(
        image_processor=AutoImageProcessor.from_pretrained(folder, backend="pil"),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )


def _accept(processor: object, name: str, part: object) -> None:
    """Take any part, a missing one too."""
