"""Which settings of the stage reach which source."""

from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.assignments import read_assignments
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.sources.registry import setting_types

# Of sources that cut or render: a few seconds of work, so that every core has some, progress is
# seen, and little is redone after a kill.
_PAIRS_A_PART = 16


def settings_for(config: PairsConfig, source: str) -> dict[str, object]:
    """Return the settings of a source: those all have in common, then those of its kind alone.

    Args:
        config: of the stage.
        source: `kind` or `kind:URL`.
    """
    kind = kind_of(source)
    common: dict[str, object] = {
        "samples": config.samples,
        "pairs_per_subject": config.pairs_per_subject,
        "size": config.size,
        "seed": config.seed,
        "records_per_chunk": config.samples_per_shard,
        "pairs_per_part": min(_PAIRS_A_PART, config.samples_per_shard),
        "meshes_per_part": max(
            1, min(_PAIRS_A_PART, config.samples_per_shard) // config.pairs_per_subject
        ),
    }
    known = setting_types(kind)
    return {name: value for name, value in common.items() if name in known} | {
        name.partition(".")[2]: value
        for name, value in _own(config).items()
        if name.partition(".")[0] == kind
    }


def require_kinds(config: PairsConfig) -> None:
    """Refuse settings of a kind of source that is not there: they would do nothing."""
    kinds = {kind_of(source) for source in config.sources}
    for name in _own(config):
        kind, mark, _ = name.partition(".")
        if not mark or kind not in kinds:
            raise ConfigError(
                f"source_settings must be kind.name=value of {', '.join(sorted(kinds))}, "
                f"got {name}; name a source of the corpus"
            )


def kind_of(source: str) -> str:
    """Return the kind of `kind` or `kind:URL`."""
    return source.partition(":")[0]


def _own(config: PairsConfig) -> dict[str, object]:
    return read_assignments("source_settings", config.source_settings)
