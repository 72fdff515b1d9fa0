import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth3d.artifacts.adapter import Adapter, AdapterCard, save_adapter
from dreambooth3d.errors import AdapterError, ConfigError, InputError, RunError
from dreambooth3d.generate import job
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.generate.generate import (
    ClipRequest,
    LoadedSubject,
    encode_views,
    generate_batch,
    load_subject,
    make_request,
    mark_subject,
    place_adapter,
)
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.model.names import to_peft
from dreambooth3d.runtime.session import ray_session


@pytest.fixture(scope="module")
def backbone(miniature: Path) -> Backbone:
    return load_backbone(str(miniature))


def card(backbone: Backbone, **changes: object) -> AdapterCard:
    plain = AdapterCard(
        kind="subject", backbone="miniature", backbone_revision=backbone.card.revision, rank=4,
        scale=1.0, reference_attention="joint", reference_time_offset=0, method="joint",
        trigger="sks", class_noun="mug", subject="my-mug", num_views=2, steps=1, seed=0,
        parents=(), key="k", text_scope="span",
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def adapter(backbone: Backbone, seed: int, **changes: object) -> Adapter:
    weights = {}
    for role in ("reference", "subject"):
        lora = LoraAdapter(backbone.transformer, role=role, rank=4, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in lora.named_weights():
            if "lora_B" in name:
                weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        weights[role] = to_peft(lora.weights())
    rng = np.random.default_rng(seed)
    views = tuple(
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)) for _ in range(2)
    )
    return Adapter(card(backbone, **changes), weights, views)


def request(
    subject: LoadedSubject | None, seed: int, prompt: str = "a sks mug", **changes: float
) -> ClipRequest:
    given = ClipRequest(
        prompt=prompt, subject=subject, num_frames=5, width=32, height=32, flow_shift=3.0,
        seed=seed, num_steps=3, guidance_scale=2.0 + seed,
    )  # fmt: skip
    return dataclasses.replace(given, **changes)


@pytest.mark.parametrize("attention", ["joint", "isolated"])
@pytest.mark.parametrize("by_reference", [(1.0, 1.0, 1.0), (1.0, 4.0, 2.0)])
def test_a_clip_is_the_same_alone_or_beside_other_subjects(
    backbone: Backbone, attention: str, by_reference: tuple[float, ...]
) -> None:
    subjects = [
        place_adapter(adapter(backbone, seed, reference_attention=attention), backbone)
        for seed in range(3)
    ]
    requests = [
        request(s, i, "a video of a sks mug" + " on a beach" * i, reference_guidance_scale=scale)
        for i, (s, scale) in enumerate(zip(subjects, by_reference, strict=True))
    ]
    together = generate_batch(backbone, requests)
    for one, frames in zip(requests, together, strict=True):
        (alone,) = generate_batch(backbone, [one])
        assert alone is not None
        assert frames is not None
        assert alone.shape == (5, 32, 32, 3)
        assert np.abs(alone.astype(int) - frames.astype(int)).max() <= 1
    assert together[0] is not None
    assert not np.array_equal(together[0], together[1])


def test_the_adapter_acts_and_the_seed_decides(backbone: Backbone) -> None:
    subject = place_adapter(adapter(backbone, 1), backbone)
    (first,), (again,) = (generate_batch(backbone, [request(subject, 5)]) for _ in range(2))
    assert np.array_equal(first, again)
    (other,) = generate_batch(backbone, [request(subject, 6)])
    assert not np.array_equal(first, other)
    (plain,) = generate_batch(backbone, [request(None, 5)])
    assert not np.array_equal(first, plain)


@pytest.mark.parametrize("attention", ["joint", "isolated"])
def test_guidance_on_the_references_acts_on_their_part_alone(
    backbone: Backbone, attention: str
) -> None:
    subject = place_adapter(adapter(backbone, 1, reference_attention=attention), backbone)
    (plain,) = generate_batch(backbone, [request(subject, 5)])
    (guided,) = generate_batch(backbone, [request(subject, 5, reference_guidance_scale=3.0)])
    assert not np.array_equal(plain, guided)
    # Views of nothing say the same with and without: there is nothing to go further from.
    blank = adapter(backbone, 1, reference_attention=attention)
    white = tuple(Image.new("RGB", (40, 40), "white") for _ in blank.references)
    subject = place_adapter(Adapter(blank.card, blank.weights, white), backbone)
    (plain,) = generate_batch(backbone, [request(subject, 5)])
    (guided,) = generate_batch(backbone, [request(subject, 5, reference_guidance_scale=3.0)])
    assert plain is not None
    assert guided is not None
    assert np.abs(plain.astype(int) - guided.astype(int)).max() <= 1


def test_the_text_guides_above_its_noise_level_alone(backbone: Backbone) -> None:
    def clip(**changes: float) -> np.ndarray:
        (frames,) = generate_batch(backbone, [request(None, 5, **changes)])
        assert frames is not None
        return frames

    always, never = clip(), clip(guidance_scale=1.0)
    assert np.array_equal(clip(guided_above=1.0, guidance_scale=1.0), never)
    some = clip(guided_above=0.9)
    assert not np.array_equal(some, always)
    assert not np.array_equal(some, never)


def test_dropped_rows_stop_and_the_others_are_unchanged(backbone: Backbone) -> None:
    subjects = [place_adapter(adapter(backbone, seed), backbone) for seed in range(2)]
    requests = [request(s, i) for i, s in enumerate(subjects)]
    seen: list[tuple[int, int]] = []

    def on_step(step: int, total: int) -> tuple[int, ...]:
        seen.append((step, total))
        return (0,) if step == 1 else ()

    dropped, kept = generate_batch(backbone, requests, on_step=on_step)
    assert dropped is None
    (alone,) = generate_batch(backbone, requests[1:])
    assert kept is not None
    assert alone is not None
    assert np.abs(kept.astype(int) - alone.astype(int)).max() <= 1
    assert seen == [(1, 3), (2, 3), (3, 3)]
    everyone = generate_batch(backbone, requests, on_step=lambda step, total: (0, 1))
    assert everyone == [None, None]


def test_views_are_letterboxed_never_cropped(backbone: Backbone) -> None:
    wide = Image.new("RGB", (64, 16), "red")
    white = Image.new("RGB", (32, 32), "white")
    square = Image.new("RGB", (32, 32), "white")
    square.paste(wide.resize((32, 8)), (0, 12))
    ours = encode_views(backbone, [wide, white], 32, 32)
    assert ours.shape == (2, backbone.codec.num_channels, 4, 4)
    torch.testing.assert_close(ours[0], encode_views(backbone, [square], 32, 32)[0])


def test_unequal_rows_and_bad_shapes_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="group them by batch_key"):
        generate_batch(
            backbone,
            [request(None, 0), dataclasses.replace(request(None, 1), num_frames=9)],
        )
    for change, sentence in (
        ({"num_frames": 6}, "num_frames must be 4n \\+ 1, got 6; use 5"),
        ({"width": 30}, "width must be a positive multiple of 8, got 30; use 32"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            generate_batch(backbone, [dataclasses.replace(request(None, 0), **change)])


def test_foreign_adapters_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    save_adapter(tmp_path / "a", adapter(backbone, 0, backbone_revision="0123456789abcdef"))
    with pytest.raises(AdapterError, match="my-mug must be used with backbone miniature"):
        load_subject(tmp_path / "a", backbone)


@pytest.mark.parametrize(
    ("prompt", "marked"),
    [
        ("a sks mug on a desk", "a [sks mug] on a desk"),
        ("a [sks mug] on a desk", "a [sks mug] on a desk"),
        ("a [rhs mug] on a desk", "a [sks mug] on a desk"),
        ("A Sks Mug on a desk", "A [sks mug] on a desk"),
        ("two sks mugs", "two sks mugs"),
        ("a desk", "a desk"),
    ],
)
def test_the_subject_is_marked_where_it_is_named(
    backbone: Backbone, prompt: str, marked: str
) -> None:
    assert mark_subject(prompt, card(backbone)) == marked


@pytest.mark.parametrize("prompt", ["a [red lamp]", "a [sks mug", "a [[sks mug]]", "[a] [b]", "[]"])
def test_unknown_brackets_are_refused(backbone: Backbone, prompt: str) -> None:
    with pytest.raises(InputError, match="bracket"):
        mark_subject(prompt, card(backbone))


def test_requests_take_the_backbones_defaults(backbone: Backbone) -> None:
    made = make_request(GenerateConfig(seed=3), backbone.card, "x", None, index=2)
    assert (made.width, made.height, made.num_frames) == (32, 32, 17)
    assert (made.seed, made.flow_shift) == (5, 3.0)
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        GenerateConfig(steps=0)


@pytest.mark.ray
def test_actors_make_the_same_clips_and_keep_what_is_there(
    backbone: Backbone, miniature: Path, tmp_path: Path
) -> None:
    orders: list[job.Order] = []
    for seed, name in enumerate(("cup", "mug", "pot")):
        folder = tmp_path / "adapters" / name
        save_adapter(folder, adapter(backbone, seed, subject=name))
        orders.append((folder, "a video of a sks mug"))
    config = GenerateConfig(
        backbone=str(miniature), num_frames=1, width=32, height=32, steps=2, batch_size=2
    )
    here = job.run(config, orders, tmp_path / "here")
    said: list[str] = []
    with ray_session():
        there = job.run_in_actors(config, orders, tmp_path / "there", report=said.append)
        assert [path.name for path in here] == [path.name for path in there]
        assert [path.read_bytes() for path in here] == [path.read_bytes() for path in there]
        assert said[-1].startswith("generate: 3/3 clips")
        said.clear()
        assert job.run_in_actors(config, orders, tmp_path / "there", report=said.append) == there
        assert all("exists already" in line for line in said)
        there[0].unlink()
        (tmp_path / "adapters" / "cup" / "subject.safetensors").write_bytes(b"broken")
        with pytest.raises(RunError, match=r"every clip must be made, got: .*run the same command"):
            job.run_in_actors(config, orders, tmp_path / "there")
