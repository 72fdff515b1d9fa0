"""CLIP-I, CLIP-T and DINO-I, through transformers and weights of the hub.

CLIP-I is the cosine of CLIP ViT-B/32 image embeddings (Radford et al. 2021), DINO-I that of DINOv2
ViT-B/14 class tokens (Oquab et al. 2023); frames and references are masked alike. CLIP-T is the
cosine of a prompt with a whole frame, both by the network of CLIP-I. The benchmark does not say
which sizes it used, so compare methods scored here with each other first. Weights are pinned to a
commit, safetensors only; without them the numbers are skipped by name.
"""

import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.evaluate.skipping import Skipped

Kind = Literal["clip_i", "dino_i"]

CLIP_T = "clip_t"
_HUB_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """Where weights are.

    Attributes:
        kind: which number they make.
        repository: of the hub, or a local folder.
        revision: commit of the repository; not used with a folder.
        subfolder: of the repository.
    """

    kind: Kind
    repository: str
    revision: str = ""
    subfolder: str = ""

    def __post_init__(self) -> None:
        """Check that what may change elsewhere is pinned."""
        if self.kind not in ("clip_i", "dino_i"):
            raise ConfigError(f"kind must be clip_i or dino_i, got {self.kind!r}; choose one")
        if not self.revision and not Path(self.repository).is_dir():
            raise ConfigError(
                f"revision of {self.repository} must be a commit, got none; "
                "pin it, or name a local folder"
            )


# The same weights as openai/clip-vit-base-patch32, which has no safetensors file of its own.
CLIP_I = HubModel(
    kind="clip_i",
    repository="sentence-transformers/clip-ViT-B-32",
    revision="327ab6726d33c0e22f920c83f2ff9e4bd38ca37f",
    subfolder="0_CLIPModel",
)
DINO_I = HubModel(
    kind="dino_i",
    repository="facebook/dinov2-base",
    revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class HubEmbedder:
    """A loaded network with the preparation of pictures it was published with."""

    kind: Kind
    model: Any
    processor: Any

    @torch.no_grad()
    def __call__(self, pictures: Sequence[NDArray[np.uint8]], *, batch_size: int = 8) -> Tensor:
        """Embed RGB pictures (H, W, 3) to unit vectors, (N, C)."""
        parts = []
        for start in range(0, len(pictures), batch_size):
            images = [Image.fromarray(picture) for picture in pictures[start : start + batch_size]]
            prepared = self.processor(images=images, return_tensors="pt")
            parts.append(F.normalize(self._embedded(prepared).float(), dim=-1))
        return torch.cat(parts)

    def _embedded(self, prepared: Any) -> Tensor:
        if self.kind == "dino_i":
            found: Tensor = self.model(**prepared).last_hidden_state[:, 0]
            return found
        features: Tensor = self.model.get_image_features(**prepared).pooler_output
        return features


@dataclass(frozen=True, kw_only=True, eq=False)
class TextAligner:
    """CLIP-T: how well pictures show a text.

    Attributes:
        embedder: of CLIP-I.
        tokenizer: that was published with it.
    """

    embedder: HubEmbedder
    tokenizer: Any

    def __post_init__(self) -> None:
        """Check that the network reads text."""
        if self.embedder.kind != "clip_i":
            raise ConfigError(
                f"text must be embedded by clip_i, got {self.embedder.kind}; it reads pictures only"
            )

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """Embed to a unit vector, (1, C); what is beyond CLIP's 77 tokens is cut off."""
        tokens = self.tokenizer(
            [text], truncation=True, max_length=self._longest, return_tensors="pt"
        )
        found: Tensor = self.embedder.model.get_text_features(**tokens).pooler_output
        return F.normalize(found.float(), dim=-1)

    def align(self, picture: NDArray[np.uint8], text_1C: Tensor) -> float:
        """Cosine of a whole RGB picture (H, W, 3), of which CLIP sees the middle square."""
        return float((self.embedder([picture]) @ text_1C.T).item())

    def cuts(self, text: str) -> bool:
        """Say whether a text is longer than CLIP reads."""
        return len(self.tokenizer(text)["input_ids"]) > self._longest

    @property
    def _longest(self) -> int:
        return int(self.embedder.model.config.text_config.max_position_embeddings)


def find_aligner(wanted: HubModel, embedder: HubEmbedder | Skipped) -> TextAligner | Skipped:
    """Load the tokenizer beside the weights of `embedder`; else say what is missing."""
    if isinstance(embedder, Skipped):
        return Skipped(name=CLIP_T, reason=embedder.reason)
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(wanted.repository, **_place_of(wanted))
    except OSError as error:
        return Skipped(
            name=CLIP_T, reason=f"tokenizer of {wanted.repository} is not here: {_first(error)}"
        )
    # Without its files transformers makes one that knows no words.
    size = embedder.model.config.text_config.vocab_size
    if len(tokenizer) != size:
        known = f"got one of {len(tokenizer)} words, the network has {size}"
        return Skipped(name=CLIP_T, reason=f"tokenizer of {wanted.repository} is not here: {known}")
    return TextAligner(embedder=embedder, tokenizer=tokenizer)


def find_embedder(wanted: HubModel) -> HubEmbedder | Skipped:
    """Load what is on this machine or can be downloaded; else say what is missing.

    Raises:
        ArtifactError: the weights are not those of such a network, in whole.
    """
    # A library of seconds to load, for those who ask for it.
    from transformers import AutoImageProcessor, CLIPModel, Dinov2Model

    family = CLIPModel if wanted.kind == "clip_i" else Dinov2Model
    place = _place_of(wanted)
    try:
        model, found = family.from_pretrained(
            wanted.repository, use_safetensors=True, output_loading_info=True, **place
        )
        processor = AutoImageProcessor.from_pretrained(wanted.repository, **place)
    except OSError as error:
        return Skipped(
            name=wanted.kind, reason=f"weights of {wanted.repository} are not here: {_first(error)}"
        )
    # transformers fills what does not fit with random numbers, and warns.
    if wrong := [str(key) for name in ("missing_keys", "mismatched_keys") for key in found[name]]:
        raise ArtifactError(
            f"weights of {wanted.repository} must be those of {family.__name__}, got no fitting "
            f"{wrong[0]}; name another repository"
        )
    return HubEmbedder(kind=wanted.kind, model=model.eval(), processor=processor)


def _place_of(wanted: HubModel) -> dict[str, Any]:
    """Arguments of `from_pretrained`."""
    place: dict[str, Any] = {"subfolder": wanted.subfolder} if wanted.subfolder else {}
    if Path(wanted.repository).is_dir():
        return place
    place["revision"] = wanted.revision
    # Where the hub cannot be reached it is asked for minutes, again and again.
    if not _is_reachable():
        place["local_files_only"] = True
    return place


def _first(error: OSError) -> str:
    """Cut transformers' own text, which goes on for paragraphs."""
    return str(error).strip().splitlines()[0][:160]


def _is_reachable() -> bool:
    """Say whether the hub answers at all, in seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    question = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(question, timeout=_HUB_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
