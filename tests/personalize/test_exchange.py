"""Subjects to and from published pairs: the same clip before and after."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.artifacts.adapter import load_card, save_adapter
from dreambooth3d.errors import AdapterError, InputError
from dreambooth3d.generate.generate import generate_batch, load_subject
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.names import PUBLISHED_FILE
from dreambooth3d.personalize.exchange import PairWords, export_pair, import_pair
from tests.generate.test_generate import adapter, request

WORDS = PairWords(subject="mug", trigger="sks", class_noun="mug")


@pytest.fixture(scope="module")
def backbone(miniature: Path) -> Backbone:
    return load_backbone(str(miniature))


@pytest.fixture
def source(backbone: Backbone, tmp_path: Path) -> Path:
    save_adapter(tmp_path / "own", adapter(backbone, 1, scale=0.5, text_scope="prompt"))
    return tmp_path / "own"


def test_a_subject_is_the_same_after_a_journey_through_a_published_pair(
    backbone: Backbone, miniature: Path, source: Path, tmp_path: Path
) -> None:
    files = export_pair(source, tmp_path / "pair")
    assert [path.name for path in files] == [PUBLISHED_FILE] * 2
    (folder,) = import_pair(
        tmp_path / "pair", tmp_path / "mug", WORDS, views=source / "references",
        backbone=str(miniature),
    )  # fmt: skip
    assert load_card(folder).method == "joint"
    clips = [
        generate_batch(backbone, [request(load_subject(path, backbone), 0)])[0]
        for path in (source, folder)
    ]
    (plain,) = generate_batch(backbone, [request(None, 0)])
    assert clips[0] is not None
    assert clips[1] is not None
    assert plain is not None
    np.testing.assert_array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], plain)


def test_the_subject_half_alone_needs_no_views(
    miniature: Path, source: Path, tmp_path: Path
) -> None:
    reference, _ = export_pair(source, tmp_path / "pair")
    reference.unlink()
    given = {"backbone": str(miniature)}
    with pytest.raises(InputError, match="must get no --views, got 2"):
        import_pair(
            tmp_path / "pair", tmp_path / "mug", WORDS, views=source / "references", **given
        )
    (folder,) = import_pair(tmp_path / "pair", tmp_path / "mug", WORDS, **given)
    assert load_card(folder).method == "3dreambooth"


def test_a_dry_run_checks_everything_and_writes_nothing(
    miniature: Path, source: Path, tmp_path: Path
) -> None:
    export_pair(source, tmp_path / "nothing", is_dry=True)
    assert not (tmp_path / "nothing").exists()
    export_pair(source, tmp_path / "pair")
    with pytest.raises(InputError, match="must get --views"):
        import_pair(
            tmp_path / "pair", tmp_path / "mug", WORDS, backbone=str(miniature), is_dry=True
        )
    assert not (tmp_path / "mug").exists()


def test_what_cannot_be_a_pair_is_refused(backbone: Backbone, source: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "isolated", adapter(backbone, 1, reference_attention="isolated"))
    with pytest.raises(AdapterError, match="must have reference_attention joint"):
        export_pair(tmp_path / "isolated", tmp_path / "pair")
    with pytest.raises(InputError, match="must not be there yet"):
        export_pair(source, tmp_path)
    reference, _ = export_pair(source, tmp_path / "pair")
    reference.write_bytes(b"damaged")
    with pytest.raises(AdapterError, match="must be whole safetensors"):
        import_pair(tmp_path / "pair", tmp_path / "mug", WORDS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must be a folder of pictures"):
        import_pair(tmp_path / "pair", tmp_path / "mug", WORDS, views=tmp_path / "empty")
    with pytest.raises(InputError, match="noun must be words"):
        PairWords(subject="mug", trigger="sks", class_noun="")


def test_views_are_taken_in_the_order_of_their_names(
    miniature: Path, source: Path, tmp_path: Path
) -> None:
    export_pair(source, tmp_path / "pair")
    (tmp_path / "views").mkdir()
    for name, grey in (("10.png", 10), ("9.png", 9)):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(tmp_path / "views" / name)
    (folder,) = import_pair(
        tmp_path / "pair", tmp_path / "mug", WORDS, views=tmp_path / "views",
        backbone=str(miniature),
    )  # fmt: skip
    with Image.open(folder / "references" / "001.png") as first:
        assert first.getpixel((0, 0)) == (9, 9, 9)
