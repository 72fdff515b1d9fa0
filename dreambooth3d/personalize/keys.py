"""What names a subject's adapter, and where it lies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.adapter import load_card
from dreambooth3d.artifacts.key import artifact_key, content_hash
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.model.backbone import read_card
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.personalize import resolve
from dreambooth3d.training.checkpoint import saved_steps

STAGE, REVISION = "personalize", 2
CURVE_NAME = "curve.json"


def key_of(config: PersonalizeConfig, subject: Subject, parents: Sequence[str]) -> str:
    """Content key of one subject's adapter: settings, words and every picture's bytes."""
    settings = versioned(resolve(config, subject))
    words = {"subject": subject.id, "class_noun": subject.class_noun, "trigger": subject.trigger}
    images = [content_hash(path) for path in (*subject.images, *subject.references)]
    return artifact_key(
        STAGE, REVISION, {**settings, **words}, [*parents, str(len(subject.images)), *images]
    )


def parents_of(config: PersonalizeConfig, pretrained: Path | None) -> tuple[str, ...]:
    """What a subject's adapter is made from: backbone revision, the 3Dapter's key, its weights."""
    revision = read_card(config.backbone).revision
    if pretrained is None or config.method == "3dreambooth":
        return (revision,)
    card = load_card(pretrained)
    return (revision, card.key, card.weights_sha256)


def versioned(config: PersonalizeConfig) -> dict[str, Any]:
    """Settings of the key; the backbone counts by its revision, a parent, not by its path."""
    return {k: v for k, v in versioned_fields(config).items() if k != "backbone"}


def home_of(out: Path, key: str) -> Path:
    """Where the adapter of this key is published."""
    return out / "subjects" / key


def checkpoints_of(out: Path, key: str) -> Path:
    """Where the checkpoints of an unfinished subject are."""
    return out / ".checkpoints" / key


def saved_step(out: Path, key: str) -> int:
    """Updates that the newest checkpoint of this key holds; 0 without one."""
    return max(saved_steps(checkpoints_of(out, key)), default=0)
