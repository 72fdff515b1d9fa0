"""Subjects to and from published pairs (`model.names` has the file format)."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dreambooth3d.artifacts.adapter import (
    Adapter,
    AdapterCard,
    load_adapter,
    method_of,
    save_adapter,
)
from dreambooth3d.artifacts.image import list_images, read_image
from dreambooth3d.artifacts.key import artifact_key, content_hash, publish
from dreambooth3d.artifacts.subject import check_id, check_words
from dreambooth3d.errors import AdapterError, InputError
from dreambooth3d.model.backbone import read_card
from dreambooth3d.model.names import (
    export_published,
    from_peft,
    import_published,
    published_path,
    rank_of,
    to_peft,
)

STAGE, REVISION = "exchange", 1
# Published pairs add `B A` as it is, whatever their metadata say (method, section 3).
_SCALE = 1.0


@dataclass(frozen=True, kw_only=True)
class PairWords:
    """What a published pair does not tell of itself.

    Attributes:
        subject: id it gets here.
        trigger: word of its prompts.
        class_noun: what the object is in its prompts.
    """

    subject: str
    trigger: str
    class_noun: str

    def __post_init__(self) -> None:
        check_id(self.subject)
        check_words("trigger", self.trigger)
        check_words("noun", self.class_noun)


def export_pair(source: Path, target: Path, *, is_dry: bool = False) -> tuple[Path, ...]:
    """Write an adapter folder as a published pair and return its files.

    The adapter's scale goes into `lora_B`. Its views are not part of a pair, and neither is its
    `text_scope`: who reads a pair lets it act on the whole prompt.

    Raises:
        AdapterError: whoever reads the pair would use its references otherwise than it was trained.
    """
    _require_new(target)
    adapter = load_adapter(source)
    card = adapter.card
    if card.reference_attention != "joint" or card.reference_time_offset != 0:
        raise AdapterError(
            "an adapter must have reference_attention joint and reference_time_offset 0 to be a "
            f"published pair, got {card.reference_attention} and {card.reference_time_offset}; "
            "personalize with a 3Dapter of that kind"
        )
    scaled = {
        role: {
            name: tensor * card.scale if name.endswith("lora_B.weight") else tensor
            for name, tensor in from_peft(tensors).items()
        }
        for role, tensors in adapter.weights.items()
    }
    if not is_dry:
        with publish(target) as aside:
            export_published(aside, scaled)
    return tuple(published_path(target, role) for role in sorted(scaled))


def import_pair(
    source: Path,
    target: Path,
    words: PairWords,
    *,
    views: Path | None = None,
    backbone: str = "tiny",
    is_dry: bool = False,
) -> tuple[Path, ...]:
    """Save a published pair, or its subject half alone, as an adapter folder.

    Args:
        source: the folder that holds `lora/`.
        target: the adapter's folder, not there yet.
        words: how the pair is spoken of.
        views: folder of the references it was trained with, on white, in the order of their names;
            None for a subject half alone.
        backbone: what it was trained on; nothing in a pair tells.
        is_dry: check everything and write nothing.

    Returns:
        The adapter's folder.

    Raises:
        AdapterError: a file is none of a pair, or the halves differ in rank.
        InputError: views are missing, or given to a pair that uses none.
    """
    _require_new(target)
    adapter = _read_pair(source, words, _read_views(views), backbone)
    if not is_dry:
        with publish(target) as aside:
            save_adapter(aside, adapter)
    return (target,)


def _read_pair(
    source: Path, words: PairWords, views: tuple[Image.Image, ...], backbone: str
) -> Adapter:
    found = import_published(source)
    ranks = {role: rank_of(tensors) for role, tensors in found.items()}
    if len(set(ranks.values())) != 1:
        raise AdapterError(
            f"both halves of a pair must have one rank, got {ranks} in {source}; "
            "take two that were trained together"
        )
    if ("reference" in found) != bool(views):
        wanted = "--views, those it was trained with" if "reference" in found else "no --views"
        raise InputError(
            f"a pair of {' and '.join(sorted(found))} weights must get {wanted}, "
            f"got {len(views)} of them"
        )
    card = read_card(backbone)
    files = (published_path(source, role) for role in sorted(found))
    parents = (card.revision, *map(content_hash, files))
    return Adapter(
        AdapterCard(
            kind="subject",
            backbone=card.name,
            backbone_revision=card.revision,
            rank=ranks[next(iter(ranks))],
            scale=_SCALE,
            # The published code has neither isolated references nor an offset.
            reference_attention="joint",
            reference_time_offset=0,
            method=method_of(found),
            num_views=len(views),
            steps=0,
            seed=0,
            parents=parents,
            key=artifact_key(STAGE, REVISION, vars(words), parents),
            **vars(words),
        ),
        {role: to_peft(tensors) for role, tensors in found.items()},
        views,
    )


def _read_views(folder: Path | None) -> tuple[Image.Image, ...]:
    if folder is None:
        return ()
    paths = list_images(folder) if folder.is_dir() else ()
    if not paths:
        raise InputError(
            f"views must be a folder of pictures of the object on white, got none in {folder}; "
            "give those the pair was trained with"
        )
    return tuple(map(read_image, paths))


def _require_new(target: Path) -> None:
    if target.exists():
        raise InputError(f"the target must not be there yet, got {target}; name another folder")
