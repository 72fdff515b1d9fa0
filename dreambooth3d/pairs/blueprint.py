"""From settings to things: the sources, the chain, the rules, and the key of a corpus."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.key import artifact_key, content_hash
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.assignments import read_assignments
from dreambooth3d.pairs.captions import Captioner, VisionLanguageCaptioner
from dreambooth3d.pairs.chain import Chain
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.encoding import Encoding, choose_encoding
from dreambooth3d.pairs.finish import FinishRules
from dreambooth3d.pairs.identity import IdentityLimits
from dreambooth3d.pairs.inference import PinnedModel
from dreambooth3d.pairs.plan import PlannedSource, plan_sources
from dreambooth3d.pairs.safety import ClassifierFilter, SafetyFilter
from dreambooth3d.pairs.source_settings import require_kinds, settings_for
from dreambooth3d.pairs.sources.registry import parse_source
from dreambooth3d.pairs.splits import Blocklist, read_blocklist
from dreambooth3d.vision.quality import QualityRules
from dreambooth3d.vision.segment import build_segmenter

STAGE, REVISION = "pairs", 3
# Raised when a shelf's shards would be others of the same part.
_SHELF_REVISION = 3
# What reaches records through their source, whose fingerprint tells.
_BY_SOURCE = frozenset({"samples", "pairs_per_subject"})
# What makes no difference to a part.
_AFTER_PARTS = frozenset(
    {"duplicate_bits", "held_out_share", "seed", "encode", "samples_per_shard"}
)
# Of the corpus's side that an object has to fill: more pixels than are kept need nobody.
_OBJECT_SHARE = 0.375


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """All that is needed to make a corpus.

    Attributes:
        key: of the corpus.
        sources: in order.
        chain: the operators.
        rules: what is done to finished parts.
        encoding: whose latents are added, if any.
        duplicate_bits: see `PairsConfig`.
        shown: the settings, for the manifest: no path in it, so that no machine is.
    """

    key: str
    sources: tuple[PlannedSource, ...]
    chain: Chain
    rules: FinishRules
    encoding: Encoding | None
    duplicate_bits: int
    shown: dict[str, JsonValue]

    def parts_of(self, source: PlannedSource) -> str:
        """Name the folder of a source's parts."""
        return f".parts-{source.key}"

    def shelf_of(self, source: PlannedSource) -> str:
        """Name the folder of a source's finished shards.

        A sample goes when one before it looks the same, so sources before it are in the name.
        """
        content = {
            "rules": asdict(self.rules),
            "encoding": _versioned(self.encoding),
            "duplicate_bits": self.duplicate_bits,
        }
        labels = [item.label for item in self.sources]
        before = [item.key for item in self.sources[: labels.index(source.label) + 1]]
        return f".shards-{artifact_key('shelf', _SHELF_REVISION, content, before)}"

    def without_chunks(self) -> "Blueprint":
        """A light copy for workers, who get their chunk by itself."""
        sources = tuple(replace(source, chunks=(), shards=()) for source in self.sources)
        return replace(self, sources=sources)


def draw_blueprint(config: PairsConfig) -> Blueprint:
    """Turn settings into things; lists the sources, and reads no pictures.

    Raises:
        InputError: a source as a whole cannot be used.
        ConfigError: a setting does not fit, or what it needs is not here.
    """
    chain = _chain(config)
    encoding = (
        choose_encoding(config.encode, config.encode_side, config.encode_precision)
        if config.encode
        else None
    )
    shown = _shown(config, chain, encoding)
    own = {name: value for name, value in shown.items() if name not in _BY_SOURCE}
    operators = {name: value for name, value in own.items() if name not in _AFTER_PARTS}
    require_kinds(config)
    sources = plan_sources(
        [parse_source(text, settings_for(config, text)) for text in config.sources],
        artifact_key("operators", REVISION, operators, ()),
        samples_per_shard=config.samples_per_shard,
    )
    return Blueprint(
        key=artifact_key(STAGE, REVISION, own, [source.key for source in sources]),
        sources=sources,
        chain=chain,
        rules=FinishRules(
            held_out_share=config.held_out_share,
            seed=config.seed,
            samples_per_shard=config.samples_per_shard,
        ),
        encoding=encoding,
        duplicate_bits=config.duplicate_bits,
        shown=shown,
    )


def _shown(config: PairsConfig, chain: Chain, encoding: Encoding | None) -> dict[str, JsonValue]:
    """List what decides the result; files and models count by what is in them."""
    weights = config.segmentation_weights
    own = versioned_fields(config)
    del own["sources"], own["source_settings"], own["encode_side"], own["encode_precision"]
    shown = {
        **own,
        "quality_rules": asdict(chain.rules),
        "segmentation_weights": content_hash(Path(weights)) if weights else "",
        "caption_model": "" if chain.captioner is None else chain.captioner.fingerprint(),
        "safety_model": "" if chain.safety is None else chain.safety.fingerprint(),
        "blocklist": chain.blocklist.fingerprint() if config.blocklist else "",
        "encode": _versioned(encoding),
    }
    return cast(dict[str, JsonValue], shown)


def _versioned(encoding: Encoding | None) -> dict[str, JsonValue] | None:
    return None if encoding is None else encoding.versioned()


def _chain(config: PairsConfig) -> Chain:
    weights = config.segmentation_weights
    return Chain(
        size=config.size,
        margin=config.margin,
        segmenter=build_segmenter(
            config.segmentation, weights=Path(weights).resolve() if weights else None
        ),
        rules=_quality_rules(config),
        quality=config.quality,
        limits=IdentityLimits(lowest=config.min_similarity, highest=config.max_similarity),
        identity=config.identity,
        caption=config.caption,
        captioner=_captioner(config),
        safety=_safety(config),
        blocklist=read_blocklist(Path(config.blocklist)) if config.blocklist else Blocklist(),
    )


def _quality_rules(config: PairsConfig) -> QualityRules:
    changes = read_assignments("quality_rules", config.quality_rules)
    known = [item.name for item in fields(QualityRules)]
    for name, value in changes.items():
        if name not in known or not isinstance(value, int | float):
            raise ConfigError(
                f"quality_rules must be numbers named {', '.join(known)}, got {name}={value}; "
                "correct it"
            )
    rules = replace(QualityRules(), **cast(dict[str, Any], changes))
    return replace(
        rules,
        min_side=min(rules.min_side, config.size),
        min_object_side=min(rules.min_object_side, round(config.size * _OBJECT_SHARE)),
    )


def _captioner(config: PairsConfig) -> Captioner | None:
    if not config.caption_model:
        return None
    return VisionLanguageCaptioner(model=_pinned(config.caption_model))


def _safety(config: PairsConfig) -> SafetyFilter | None:
    if not config.safety_model:
        return None
    return ClassifierFilter(
        model=_pinned(config.safety_model),
        label=config.safety_label,
        threshold=config.safety_threshold,
    )


def _pinned(text: str) -> PinnedModel:
    """Read `folder` or `owner/name@commit`."""
    source, _, revision = text.partition("@")
    # Workers run in other working directories.
    where = str(Path(source).resolve()) if Path(source).is_dir() else source
    return PinnedModel(source=where, revision=revision)
