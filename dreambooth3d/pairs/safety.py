"""An optional filter for unsafe pictures: off unless somebody names a model."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from PIL import Image

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.pairs.inference import PinnedModel
from dreambooth3d.vision.refusal import RefusedError
from dreambooth3d.vision.threads import one_thread


class SafetyFilter(Protocol):
    """Refuses unsafe pictures; the same picture always gets the same answer."""

    def check(self, picture: Image.Image) -> None:
        """Refuse an unsafe picture.

        Raises:
            RefusedError: `unsafe`.
        """

    def fingerprint(self) -> str:
        """A hash that changes when an answer may change."""


@dataclass(frozen=True, kw_only=True)
class ClassifierFilter:
    """Asks a transformers image-classification model, loaded at first use.

    Attributes:
        model: which one.
        label: the class that counts as unsafe, as in the model's `id2label`.
        threshold: probability from which a picture is unsafe, above 0 to 1.
        device: where it runs; on CPU every run gives the same answer.
    """

    model: PinnedModel
    label: str
    threshold: float = 0.5
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(
                f"threshold must be above 0 and at most 1, got {self.threshold}; use 0.5"
            )
        if not self.label:
            raise ConfigError("label must be the name of the unsafe class, got none; name it")

    def score(self, picture: Image.Image) -> float:
        """Return the probability of the label, 0 to 1, in 4 decimals."""
        import torch

        processor, model = _load(self.model, self.device)
        place = _place_of(self.label, model.config.id2label, self.model.source)
        inputs = processor(images=picture.convert("RGB"), return_tensors="pt").to(self.device)
        with one_thread(), torch.no_grad():
            probabilities = model(**inputs).logits[0].float().softmax(dim=0)
        return round(float(probabilities[place]), 4)

    def check(self, picture: Image.Image) -> None:
        """Refuse a picture whose score reaches the threshold."""
        score = self.score(picture)
        if score >= self.threshold:
            raise RefusedError(
                "unsafe",
                f"{self.label} score of the picture must be below {self.threshold}, got {score}; "
                "leave the picture out",
            )

    def fingerprint(self) -> str:
        """Hash of the model, the label and the threshold."""
        asked = f"{self.model.fingerprint()}\n{self.label}\n{self.threshold!r}"
        return hashlib.sha256(asked.encode()).hexdigest()


def _place_of(label: str, names: dict[int, str], source: str) -> int:
    for place, name in sorted(names.items()):
        if name == label:
            return place
    raise ConfigError(
        f"label must be one of {', '.join(names[place] for place in sorted(names))}, "
        f"got {label!r} for {source}; pick one"
    )


@lru_cache(maxsize=1)
def _load(pinned: PinnedModel, device: str) -> tuple[Any, Any]:
    """Load an image processor and a classifier, in float32."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = str(pinned.folder())
    try:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        model = AutoModelForImageClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"safety model must be a transformers image classifier, got {pinned.source} "
            f"({type(error).__name__}); choose another model"
        ) from error
    return processor, model.to(device).eval().requires_grad_(False)
