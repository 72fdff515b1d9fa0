"""What a training will be: its key, its cost, where its checkpoints go; without doing it."""

from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.pairs import PairCorpus, read_manifest
from dreambooth3d.artifacts.place import Place
from dreambooth3d.model.backbone import BackboneCard, read_card, read_structure
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.cost import describe_cost
from dreambooth3d.pretrain.pretrain import (
    TRAINED_ON,
    check_start,
    has_latents,
    parents_of,
    start_card,
    training_side,
)
from dreambooth3d.pretrain.publishing import STAGE, versioned
from dreambooth3d.training.checkpoint import saved_steps

REVISION = 1
_LATENTS_USED = "the corpus is encoded, no encoder is loaded"
_LATENTS_UNUSED = (
    "latents of the corpus are of another backbone, side or precision, pairs are encoded anew"
)
_LATENTS_ABSENT = "the corpus has none, pairs are encoded as they come, once each"


def key_of(config: PretrainConfig, corpus: Path | str) -> str:
    """Artifact key of the adapter these settings make from this corpus."""
    corpus_key = read_manifest(Place.parse(str(corpus))).key
    backbone, start = read_card(config.backbone), start_card(config)
    if start is not None:
        check_start(config, start, backbone)
    return artifact_key(STAGE, REVISION, versioned(config), parents_of(corpus_key, backbone, start))


def plan(config: PretrainConfig, corpus: Path | str, out: Path) -> dict[str, Any]:
    """Say what `run` would do, without doing it."""
    card = read_card(config.backbone)
    side = training_side(config, card)
    key, found = key_of(config, corpus), PairCorpus.open(corpus, split=TRAINED_ON)
    storage = storage_of(config, out, key)
    saved = max(saved_steps(storage), default=0)
    return {
        "inputs": {"pairs": found.place.url, "num_pairs": len(found)},
        "latents": latents_told(config, found, card),
        "backbone": f"{card.name} ({card.revision})",
        "artifact": str(out / key),
        "is done": (out / key).is_dir(),
        "workers": f"{config.workers} x {config.strategy}",
        "updates": f"{config.steps} of {config.batch_size} pairs, of which {saved} are done",
        "pictures": f"{side} x {side} pixels",
        "reference attention": config.reference_attention,
        "weights to start from": config.start or "fresh ones",
        "checkpoints": storage.url,
        "cost": describe_cost(config, read_structure(config.backbone), side),
    }


def latents_told(config: PretrainConfig, corpus: PairCorpus, card: BackboneCard) -> str:
    """Say whether the corpus's latents are used, or pairs are encoded in the training."""
    if "latents" not in corpus.manifest.outputs:
        return _LATENTS_ABSENT
    return _LATENTS_USED if has_latents(config, corpus, card) else _LATENTS_UNUSED


def storage_of(config: PretrainConfig, out: Path, key: str) -> Place:
    """Where the checkpoints of a training are."""
    home = Place.parse(config.checkpoints or str(out.resolve() / ".checkpoints"))
    return home / key
