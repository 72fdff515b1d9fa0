"""An adapter folder survives a copy, and says what is wrong when it did not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth3d.artifacts.adapter import (
    Adapter,
    AdapterCard,
    Role,
    load_adapter,
    load_card,
    save_adapter,
)
from dreambooth3d.errors import AdapterError, ArtifactError, ConfigError

CARD = AdapterCard(
    kind="subject",
    backbone="tiny",
    backbone_revision="rev-1",
    rank=2,
    scale=1.0,
    reference_attention="joint",
    reference_time_offset=0,
    method="joint",
    trigger="sks",
    class_noun="mug",
    subject="mug-1",
    num_views=2,
    steps=400,
    seed=3,
    parents=("p0", "p1"),
    key="0123456789abcdef",
)


def lora(seed: int, rank: int = 2) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    block = "transformer.transformer_blocks.0.attn.to_q"
    patch = "transformer.x_embedder.proj"
    return {
        f"{block}.lora_A.weight": torch.randn(rank, 6, generator=random),
        f"{block}.lora_B.weight": torch.randn(6, rank, generator=random).bfloat16(),
        f"{patch}.lora_A.weight": torch.randn(rank, 5, 1, 1, 1, generator=random),
        f"{patch}.lora_B.weight": torch.randn(6, rank, 1, 1, 1, generator=random),
    }


def views(num: int = 2) -> tuple[Image.Image, ...]:
    random = np.random.default_rng(0)
    return tuple(
        Image.fromarray(random.integers(0, 256, (8, 12, 3), dtype=np.uint8)) for _ in range(num)
    )


def adapter() -> Adapter:
    return Adapter(CARD, {"reference": lora(0), "subject": lora(1)}, views(), None)


def tdapter_card() -> AdapterCard:
    return replace(
        CARD,
        kind="3dapter",
        method="3dapter",
        trigger=None,
        class_noun=None,
        subject=None,
        num_views=1,
    )


def test_round_trip(tmp_path: Path) -> None:
    saved = adapter()
    card = save_adapter(tmp_path / "a", saved)
    loaded = load_adapter(tmp_path / "a")
    assert loaded.card == card == load_card(tmp_path / "a")
    assert card == replace(CARD, weights_sha256=card.weights_sha256)
    assert len(card.weights_sha256) == 64
    assert loaded.folder == tmp_path / "a"
    assert set(loaded.weights) == {"reference", "subject"}
    for role, tensors in saved.weights.items():
        assert set(loaded.weights[role]) == set(tensors)
        for name, tensor in tensors.items():
            assert loaded.weights[role][name].dtype == tensor.dtype
            assert torch.equal(loaded.weights[role][name], tensor)
    for one, other in zip(loaded.references, saved.references, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_files_are_reproducible_relative_and_free_of_pickle(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_adapter(tmp_path / name, adapter())
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert [str(p) for p in files] == [
        "adapter.json",
        "reference.safetensors",
        "references/001.png",
        "references/002.png",
        "subject.safetensors",
    ]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert str(tmp_path) not in (tmp_path / "a/adapter.json").read_text()


def test_stage_one_adapter_has_reference_weights_alone(tmp_path: Path) -> None:
    save_adapter(tmp_path / "a", Adapter(tdapter_card(), {"reference": lora(0)}))
    loaded = load_adapter(tmp_path / "a")
    assert (set(loaded.weights), loaded.references) == ({"reference"}, ())


def test_saved_tensors_need_not_be_contiguous_or_detached(tmp_path: Path) -> None:
    weights = {name: value.float().requires_grad_() for name, value in lora(0).items()}
    name = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    weights[name] = torch.randn(6, 2).T
    save_adapter(tmp_path / "a", Adapter(tdapter_card(), {"reference": weights}))
    assert torch.equal(load_adapter(tmp_path / "a").weights["reference"][name], weights[name])


@pytest.mark.parametrize(
    "name", ["reference.safetensors", "subject.safetensors", "references/002.png"]
)
@pytest.mark.parametrize("position", [0.5, -1])
def test_flipped_byte_is_found_and_named(tmp_path: Path, name: str, position: float) -> None:
    save_adapter(tmp_path, adapter())
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[int(len(data) * position) if position > 0 else -1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="must have sha256") as caught:
        load_adapter(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["adapter.json", "subject.safetensors", "references/001.png"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save_adapter(tmp_path, adapter())
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError) as caught:
        load_adapter(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": "other-9"}, "format must be dreambooth3d-adapter-1, got 'other-9'"),
        ({"rank": "two"}, "got rank missing, wrong or unknown"),
        ({"extra": 1}, "got extra missing, wrong or unknown"),
        ({"kind": "lora"}, "card must be valid, .*kind must be one of"),
        ({"files": {"../../x.safetensors": "0"}}, "must list its weights and references"),
        ({"files": {}}, "must list its weights and references"),
        ({"weights_sha256": "0"}, "weights_sha256 must be the hash of the files"),
        ({"rank": 4}, "must have 4 in axis 0, the rank of the card"),
        ({"num_views": 3}, "must be the 3 views of the card, got 2"),
    ],
)
def test_changed_card_is_refused(tmp_path: Path, changes: dict[str, object], text: str) -> None:
    save_adapter(tmp_path, adapter())
    edit(tmp_path, **changes)
    with pytest.raises(ArtifactError, match=text):
        load_adapter(tmp_path)


def test_folder_must_be_fresh(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapter())
    with pytest.raises(ArtifactError, match=r"must be fresh, got adapter\.json, references"):
        save_adapter(tmp_path, adapter())


def test_another_backbone_is_refused_in_one_sentence() -> None:
    CARD.require_backbone("rev-1", name="whatever it is called")
    with pytest.raises(AdapterError) as caught:
        CARD.require_backbone("rev-2", name="HunyuanVideo-1.5")
    assert str(caught.value) == (
        "adapter mug-1 must be used with backbone tiny at revision rev-1, got HunyuanVideo-1.5 "
        "at revision rev-2; load that backbone or train the adapter on this one"
    )


@pytest.mark.parametrize(("trained", "used"), [("joint", "isolated"), ("isolated", "joint")])
def test_another_reference_attention_is_refused_in_one_sentence(trained: str, used: str) -> None:
    card = replace(tdapter_card(), reference_attention=trained)  # type: ignore[arg-type]
    card.require_attention(trained)
    with pytest.raises(AdapterError) as caught:
        card.require_attention(used)
    assert str(caught.value) == (
        f"adapter 0123456789abcdef must be used with reference_attention {trained}, got {used}; "
        f"change the setting or train stage 1 again with reference_attention {used}"
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "lora"}, "adapter kind must be one of 3dapter, subject, got 'lora'"),
        ({"method": "both"}, "adapter method must be one of"),
        ({"reference_attention": "none"}, "reference_attention must be one of joint, isolated"),
        ({"rank": 0}, "adapter rank must be at least 1, got 0"),
        ({"steps": -1}, "adapter steps must be at least 0"),
        ({"kind": "3dapter"}, "method must be 3dapter for kind 3dapter, got 'joint'"),
        ({"trigger": None}, "must have subject, trigger and class_noun"),
    ],
)
def test_cards_are_checked_when_made(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        replace(CARD, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"subject": lora(0)}, "of method joint must be reference and subject, got subject"),
        ({"reference": {"x.lora_A.weight": torch.ones(2, 2)}, "subject": {}}, "tensor name must"),
        ({"reference": lora(0, rank=3), "subject": lora(1)}, "got shape"),
        (
            {"reference": {"transformer.x.lora_A.weight": torch.ones(2, 2)}, "subject": {}},
            "weights of x must have lora_A and lora_B, got lora_A only",
        ),
    ],
)
def test_weights_are_checked_when_made(
    weights: dict[Role, dict[str, torch.Tensor]], text: str
) -> None:
    with pytest.raises(ArtifactError, match=text):
        Adapter(CARD, weights, views())
