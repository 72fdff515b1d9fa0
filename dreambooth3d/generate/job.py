"""Make clips without a server: one process, one batch for prompts of equal shape."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.adapter import load_card
from dreambooth3d.artifacts.clip import write_clip
from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.generate.generate import (
    ClipRequest,
    LoadedSubject,
    generate_batch,
    load_subject,
    make_request,
)
from dreambooth3d.model.backbone import Backbone, load_backbone, read_card
from dreambooth3d.runtime.backbones import pick_device

STAGE, REVISION = "generate", 1
# An adapter folder (None: the plain backbone) and a prompt.
Order = tuple[Path | None, str]


def clip_path(
    config: GenerateConfig, adapter: Path | None, prompt: str, out: Path, index: int = 0
) -> Path:
    """Name a clip by its content key: subject, prompt, settings, adapter."""
    card = None if adapter is None else load_card(adapter)
    settings = versioned_fields(replace(config, seed=config.seed + index)) | {"prompt": prompt}
    settings.pop("backbone")
    parents = [read_card(config.backbone).revision] + (
        [] if card is None else [card.weights_sha256]
    )
    name = "plain" if card is None else card.subject or card.kind
    return out / f"{name}-{artifact_key(STAGE, REVISION, settings, parents)}.mp4"


def plan(config: GenerateConfig, orders: Sequence[Order], out: Path) -> dict[str, Any]:
    """Say what `run` would do, without doing it."""
    card = read_card(config.backbone)
    return {
        "inputs": [{"adapter": str(adapter), "prompt": prompt} for adapter, prompt in orders],
        "clips": [str(clip_path(config, *order, out, i)) for i, order in enumerate(orders)],
        "size": f"{config.width or card.width} x {config.height or card.height}, "
        f"{config.num_frames or card.num_frames} frames, {config.steps} steps",
        "backbone": f"{card.name} ({card.revision})",
    }


def run(
    config: GenerateConfig,
    orders: Sequence[Order],
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Make one clip for each (adapter folder, prompt); clips that exist are kept."""
    paths = [clip_path(config, *order, out, i) for i, order in enumerate(orders)]
    todo = [i for i, path in enumerate(paths) if not path.is_file()]
    for path in [path for path in paths if path.is_file()]:
        report(f"generate: {path} exists already, nothing to do")
    if todo:
        _make(config, orders, paths, todo, report)
    return paths


def _make(
    config: GenerateConfig,
    orders: Sequence[Order],
    paths: Sequence[Path],
    todo: Sequence[int],
    report: Callable[[str], None],
) -> None:
    backbone = load_backbone(config.backbone, device=pick_device())
    loaded = _load_adapters(config, {orders[i][0] for i in todo}, backbone)
    groups: dict[tuple[object, ...], list[tuple[int, ClipRequest]]] = {}
    for i in todo:
        adapter, prompt = orders[i]
        subject = None if adapter is None else loaded[adapter]
        request = make_request(config, backbone.card, prompt, subject, index=i)
        groups.setdefault(request.batch_key, []).append((i, request))
    for group in groups.values():
        for start in range(0, len(group), config.batch_size):
            part = group[start : start + config.batch_size]
            clips = generate_batch(
                backbone, [request for _, request in part], on_step=_announce(len(part), report)
            )
            for (i, request), frames in zip(part, clips, strict=True):
                assert frames is not None  # nothing here drops a row
                metadata = describe(config, request, backbone.card.revision)
                write_clip(paths[i], frames, fps=config.fps, metadata=metadata)
                report(f"generate: {paths[i]}")


def _load_adapters(
    config: GenerateConfig, folders: set[Path | None], backbone: Backbone
) -> dict[Path, LoadedSubject]:
    loaded = {}
    for folder in folders:
        if folder is not None:
            loaded[folder] = load_subject(folder, backbone)
            if config.reference_attention != "adapter":
                loaded[folder].card.require_attention(config.reference_attention)
    return loaded


def _announce(
    num_clips: int, report: Callable[[str], None]
) -> Callable[[int, int], tuple[int, ...]]:
    """Report every fifth step, with the time that is left; nothing is dropped."""
    started = time.monotonic()

    def on_step(step: int, total: int) -> tuple[int, ...]:
        if step % 5 == 0 or step == total:
            left = (time.monotonic() - started) / step * (total - step)
            report(f"generate: {num_clips} clips, step {step}/{total}, eta {left:.0f} s")
        return ()

    return on_step


def describe(config: GenerateConfig, request: ClipRequest, revision: str) -> dict[str, Any]:
    """What a clip says of itself."""
    card = None if request.subject is None else request.subject.card
    return {
        "prompt": request.prompt,
        "seed": request.seed,
        "subject": None if card is None else card.subject,
        "adapter_sha256": None if card is None else card.weights_sha256,
        "adapter_key": None if card is None else card.key,
        "backbone_revision": revision,
        "sampler": {
            k: v
            for k, v in asdict(config).items()
            if k in ("steps", "guidance_scale", "negative_prompt")
        }
        | {"flow_shift": request.flow_shift},
    }
