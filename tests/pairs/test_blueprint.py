"""From settings to sources, operators and keys."""

from pathlib import Path

import pytest

from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.blueprint import draw_blueprint
from dreambooth3d.pairs.config import PairsConfig


def test_settings_reach_their_source() -> None:
    config = PairsConfig(sources=("scenes", "scenes"), samples=5, seed=3, size=48)
    first, second = draw_blueprint(config).sources
    assert (first.label, second.label) == ("scenes", "scenes2")
    assert vars(first.source)["size"] == 48
    own = PairsConfig(source_settings=("scenes.pairs_per_subject=7",))
    assert vars(draw_blueprint(own).sources[0].source)["pairs_per_subject"] == 7


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sources": ("photos:x",)}, "source must be one of scenes"),
        ({"sources": ()}, "sources must name at least one"),
        ({"sources": ("captures",)}, "must have an address"),
        ({"source_settings": ("meshes.up=z",)}, "source_settings must be kind.name=value"),
        ({"source_settings": ("scenes.up=z",)}, "settings of scenes must be among"),
        ({"source_settings": ("scenes.size",)}, "source_settings must be name=value"),
        ({"source_settings": ("scenes.size=big",)}, "scenes.size must be int, got 'big'"),
        ({"quality_rules": ("sharp=1",)}, "quality_rules must be numbers named min_side"),
        ({"quality_rules": ("min_side=x",)}, "quality_rules must be numbers named min_side"),
        ({"caption": "model"}, "caption_model must be named"),
        ({"identity": "some"}, "identity must be one of photos, all, none"),
        ({"min_similarity": 0.99}, "identity limits must be"),
        ({"duplicate_bits": 9}, "duplicate_bits must be at least -1 and at most 8"),
        ({"safety_model": "no/model"}, "revision of no/model must be a commit"),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        draw_blueprint(PairsConfig(**settings))  # type: ignore[arg-type]


def test_workers_and_tolerance_make_no_other_corpus() -> None:
    other = PairsConfig(workers=3, max_bad_fraction=0.5)
    assert draw_blueprint(other).key == draw_blueprint(PairsConfig()).key
    assert draw_blueprint(PairsConfig(margin=0.2)).key != draw_blueprint(PairsConfig()).key


def test_encoding_takes_whole_tokens(miniature: Path) -> None:
    config = PairsConfig(encode=str(miniature), encode_side=36)
    with pytest.raises(ConfigError, match="encode_side must be a multiple of 8, got 36; use 32"):
        draw_blueprint(config)


def test_encoding_and_splits_redo_no_part(miniature: Path) -> None:
    plain, more = (
        draw_blueprint(c).sources[0].key
        for c in (PairsConfig(), PairsConfig(encode=str(miniature), held_out_share=0.1))
    )
    assert plain == more
