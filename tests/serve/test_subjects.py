import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dreambooth3d.errors import AdapterError
from dreambooth3d.generate.generate import LoadedSubject, load_subject
from dreambooth3d.model.backbone import Backbone
from serve.adapters import AdapterCache, CacheFullError
from serve.settings import ServeSettings
from serve.subjects import SubjectCatalog

AddSubject = Callable[..., Path]


def test_a_new_adapter_is_found_without_a_restart(
    settings: ServeSettings, add_subject: AddSubject
) -> None:
    catalog = SubjectCatalog(settings.subjects_root)
    assert catalog.all() == ()
    add_subject("mug")
    assert catalog.get("mug").phrase == "sks mug"
    add_subject("cup")
    assert [s.id for s in catalog.all()] == ["cup", "mug"]
    shutil.rmtree(catalog.get("cup").folder)
    assert catalog.get("cup") is None
    assert [s.id for s in catalog.all()] == ["mug"]
    assert catalog.get("../mug") is None


def test_the_newest_batch_wins_and_latest_names_it(
    settings: ServeSettings, add_subject: AddSubject
) -> None:
    catalog = SubjectCatalog(settings.subjects_root)
    add_subject("mug", batch="b1", seed=1)
    add_subject("mug", batch="b2", seed=2)
    add_subject("old", batch="b1", seed=1)
    (settings.subjects_root / "LATEST").write_text("b2\n")
    assert {s.id: s.card.seed for s in catalog.all()} == {"mug": 2, "old": 1}
    (settings.subjects_root / "LATEST").write_text("b1\n")
    assert SubjectCatalog(settings.subjects_root).get("mug").card.seed == 1


def test_damaged_and_half_written_adapters_are_left_out(
    settings: ServeSettings, add_subject: AddSubject, caplog: pytest.LogCaptureFixture
) -> None:
    add_subject("mug")
    (add_subject("bad") / "adapter.json").write_text("{")
    shutil.copytree(add_subject("tmp"), settings.subjects_root / "batch1/adapters/.tmp.partial")
    assert [s.id for s in SubjectCatalog(settings.subjects_root).all()] == ["mug", "tmp"]
    assert "bad is not served" in caplog.text


def test_the_cache_keeps_pins_and_its_budget(
    settings: ServeSettings, add_subject: AddSubject, backbone: Backbone
) -> None:
    for seed, name in enumerate("abc", start=1):
        add_subject(name, seed=seed)
    a, b, c = SubjectCatalog(settings.subjects_root).all()
    size = load_subject(a.folder, backbone).num_bytes
    loads: list[str] = []

    def load(folder: Path) -> LoadedSubject:
        loads.append(folder.name)
        return load_subject(folder, backbone)

    cache = AdapterCache(load, max_bytes=2 * size)
    with cache.pinned(a) as first:
        with cache.pinned(b), pytest.raises(CacheFullError, match="got c with"):
            cache.pinned(c).__enter__()
        with cache.pinned(c):
            assert cache.num_bytes == 2 * size
        with cache.pinned(a) as again:
            assert again is first
    assert loads == ["a", "b", "c", "c"]
    with cache.pinned(b):
        assert len(cache) == 2
    # An adapter above the whole budget is served alone.
    small = AdapterCache(load, max_bytes=1)
    with small.pinned(a):
        assert len(small) == 1


def test_an_adapter_of_another_backbone_is_not_loaded(
    settings: ServeSettings, add_subject: AddSubject, backbone: Backbone
) -> None:
    folder = add_subject("mug", revision="0" * 16)
    with pytest.raises(AdapterError, match="at revision 0000000000000000"):
        load_subject(folder, backbone)
