from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreambooth3d.artifacts.adapter import AdapterCard
from dreambooth3d.model.backbone import BackboneCard, read_card
from serve.errors import ApiError
from serve.orders import ClipOrder, ClipRules, batch_key, check_adapter, resolve
from serve.schema import (
    check_idempotency_key,
    check_range,
    is_job_id,
    is_subject_id,
    parse_create,
)
from serve.settings import ServeSettings

CARD = BackboneCard(
    name="tiny",
    folder=Path(),
    revision="r1",
    flow_shift=3.0,
    train_side=64,
    width=64,
    height=64,
    num_frames=17,
)
RULES = ClipRules(
    model="tiny",
    backbone=CARD,
    spatial_ratio=8,
    temporal_ratio=4,
    size_multiple=16,
    max_tokens=5120,
    max_steps=50,
    reference_attention="any",
)
MUG = AdapterCard(
    kind="subject",
    backbone="tiny",
    backbone_revision="r1",
    rank=2,
    scale=1.0,
    reference_attention="joint",
    reference_time_offset=32,
    method="joint",
    trigger="sks",
    class_noun="mug",
    subject="mug",
    num_views=2,
    steps=1,
    seed=0,
    parents=(),
    key="k",
)


def order(**fields: Any) -> ClipOrder:
    card = MUG if fields.get("subject") else None
    return resolve(parse_create({"prompt": "a red car", **fields}), RULES, card)


def refusal(**fields: Any) -> tuple[int, str, str | None, str]:
    with pytest.raises(ApiError) as caught:
        order(**fields)
    body = caught.value.reply.error
    return caught.value.status, body.code, body.param, body.message


def test_defaults_are_the_backbones() -> None:
    found = order(seed=3)
    assert (found.width, found.height, found.num_frames, found.fps) == (64, 64, 17, 8)
    assert (found.num_steps, found.guidance_scale, found.flow_shift) == (20, 4.0, 3.0)
    assert ClipOrder.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("seconds", "num_frames"), [("2", 17), (2, 17), (2.0, 17), ("4", 33), (0.1, 1), ("1.5", 13)]
)
def test_seconds_become_the_nearest_frame_count(seconds: object, num_frames: int) -> None:
    assert order(seconds=seconds).num_frames == num_frames


def test_form_text_is_read_as_numbers() -> None:
    found = order(num_frames="9", seed="5", guidance_scale="1.5", size="32x64", fps="4")
    assert (found.num_frames, found.seed, found.guidance_scale) == (9, 5, 1.5)
    assert (found.width, found.height, found.fps) == (32, 64, 4)


def test_without_a_seed_one_is_drawn_but_equal_requests_stay_equal() -> None:
    assert order().seed != order().seed
    first, second = (parse_create({"prompt": "a", "seconds": s}) for s in ("2", 2))
    assert first.content_hash == second.content_hash
    assert first.content_hash != parse_create({"prompt": "b"}).content_hash


@pytest.mark.parametrize(
    ("fields", "param", "sentence"),
    [
        ({"num_frames": 18}, "num_frames", "num_frames must be 4n + 1, got 18; use 17"),
        ({"num_frames": 0}, "num_frames", "num_frames must be 4n + 1, got 0; use 1"),
        ({"size": "65x64"}, "size", "size must be multiples of 16, got 65x64; use 64x64"),
        ({"size": "0x64"}, "size", "size must be multiples of 16, got 0x64; use 16x64"),
        ({"size": "8000x8000"}, "size", "at most 5120 latent tokens"),
        ({"num_inference_steps": 51}, "num_inference_steps", "at most 50, got 51; use fewer"),
    ],
)
def test_shapes_that_cannot_be_made_are_422(
    fields: dict[str, Any], param: str, sentence: str
) -> None:
    status, code, found, message = refusal(**fields)
    assert (status, code, found) == (422, "shape_not_allowed", param)
    assert sentence in message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "x" * 4001}, "prompt"),
        ({"seconds": "soon"}, "seconds"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seconds": "1e9"}, "seconds"),
        ({"size": "big"}, "size"),
        ({"size": "64x"}, "size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": "one"}, "seed"),
        ({"fps": 0}, "fps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": -1}, "guidance_scale"),
        ({"reference_scale": -1}, "reference_scale"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"input_reference": "https://example.org/x.png"}, "input_reference"),
    ],
)
def test_bad_values_are_400_and_name_the_field(fields: dict[str, Any], param: str) -> None:
    status, code, found, message = refusal(**fields)
    assert (status, code, found) == (400, "invalid_value", param)
    assert "must" in message
    assert ", got " in message
    message.encode()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"prompt": "a [sks mug]"}, "got [sks mug] without one"),
        (
            {"prompt": "a [sks dog] runs", "subject": "mug"},
            "it must be [sks mug], got [sks dog]",
        ),
        ({"prompt": "a [sks mug", "subject": "mug"}, "at most one"),
        ({"prompt": "[sks mug] and [sks mug]", "subject": "mug"}, "at most one"),
        ({"negative_prompt": "[sks mug]", "subject": "mug"}, "brackets in negative_prompt"),
    ],
)
def test_unknown_brackets_are_400(fields: dict[str, Any], sentence: str) -> None:
    status, code, _, message = refusal(**fields)
    assert (status, code) == (400, "invalid_prompt")
    assert sentence in message


def test_another_model_is_404() -> None:
    assert order(model="tiny").model == "tiny"
    assert refusal(model="sora-2")[:3] == (404, "model_not_found", "model")


def test_adapters_of_another_backbone_or_attention_are_409() -> None:
    check_adapter(MUG, RULES)
    with pytest.raises(ApiError, match="at revision r2, got tiny at revision r1") as caught:
        check_adapter(replace(MUG, backbone_revision="r2"), RULES)
    assert (caught.value.status, caught.value.reply.error.code) == (409, "adapter_mismatch")
    with pytest.raises(ApiError, match="reference_attention joint, got isolated"):
        check_adapter(MUG, replace(RULES, reference_attention="isolated"))


def test_batch_keys_keep_apart_what_cannot_share_a_batch() -> None:
    keys = [
        batch_key(order(), None),
        batch_key(order(), MUG),
        batch_key(order(), replace(MUG, num_views=1)),
        batch_key(order(), replace(MUG, reference_attention="isolated")),
        batch_key(order(num_frames=9), MUG),
        batch_key(order(num_inference_steps=4), MUG),
    ]
    assert len(set(keys)) == len(keys)
    assert batch_key(order(seed=1, guidance_scale=2), replace(MUG, subject="b")) == keys[1]


def test_ids_headers_and_ranges() -> None:
    assert is_job_id("video_" + "0" * 32)
    assert not is_job_id("../etc")
    assert is_subject_id("mug_1.b-c")
    assert not any(map(is_subject_id, ("", "..", "a/b", "a\0", "x" * 65)))
    assert check_idempotency_key("k") == "k"
    with pytest.raises(ApiError):
        check_idempotency_key("")
    for good in (None, "bytes=0-", "bytes=0-9", "bytes=-5", "bytes=0-1, 4-5"):
        check_range(good, 10)
    statuses = {}
    for bad in ("bytes=10-", "bytes=-0", "bytes=5-2", "bytes=-", "pages=1-2", "bytes=a-b"):
        with pytest.raises(ApiError) as caught:
            check_range(bad, 10)
        statuses[bad] = caught.value.status
    assert list(statuses.values()) == [416, 416, 400, 400, 400, 400]


def test_settings_come_from_arguments_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMBOOTH3D_MAX_BATCH", "3")
    monkeypatch.setenv("DREAMBOOTH3D_RUNS", "elsewhere")
    found = ServeSettings(runs="here")
    assert (found.max_batch, found.runs, found.backbone) == (3, "here", "tiny")
    assert Path(found.absolute().runs).is_absolute()
    monkeypatch.setenv("DREAMBOOTH3D_MAX_BATCH", "none")
    with pytest.raises(ValueError, match="max_batch"):
        ServeSettings()


def test_sizes_are_those_that_the_transformer_has_tokens_for() -> None:
    rules = ClipRules.of(read_card("tiny"), ServeSettings())
    assert (rules.spatial_ratio, rules.size_multiple) == (4, 8)
    with pytest.raises(ApiError, match="size must be multiples of 8, got 12x64; use 16x64"):
        resolve(parse_create({"prompt": "a mug", "size": "12x64"}), rules, None)
