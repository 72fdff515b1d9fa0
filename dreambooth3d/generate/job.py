"""Make clips without a server: one process, one batch for prompts of equal shape."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.adapter import load_card
from dreambooth3d.artifacts.clip import write_clip
from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.generate.generate import ClipRequest, generate_batch, load_subject, make_request
from dreambooth3d.model.backbone import load_backbone, read_card
from dreambooth3d.runtime.backbones import pick_device

STAGE, REVISION = "generate", 1


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


def plan(
    config: GenerateConfig, orders: Sequence[tuple[Path | None, str]], out: Path
) -> dict[str, Any]:
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
    orders: Sequence[tuple[Path | None, str]],
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Make one clip for each (adapter folder, prompt); clips that exist are kept."""
    paths = [clip_path(config, *order, out, i) for i, order in enumerate(orders)]
    todo = [i for i, path in enumerate(paths) if not path.is_file()]
    for path in [path for path in paths if path.is_file()]:
        report(f"generate: {path} exists already, nothing to do")
    if not todo:
        return paths
    backbone = load_backbone(config.backbone, device=pick_device())
    loaded = {
        adapter: load_subject(adapter, backbone)
        for adapter in {orders[i][0] for i in todo}
        if adapter is not None
    }
    groups: dict[tuple[object, ...], list[tuple[int, ClipRequest]]] = {}
    for i in todo:
        adapter, prompt = orders[i]
        subject = None if adapter is None else loaded[adapter]
        request = make_request(config, backbone.card, prompt, subject, index=i)
        groups.setdefault(request.batch_key, []).append((i, request))
    for group in groups.values():
        requests = [request for _, request in group]

        def on_step(step: int, total: int, count: int = len(requests)) -> tuple[int, ...]:
            if step % 5 == 0 or step == total:
                report(f"generate: {count} clips, step {step}/{total}")
            return ()

        clips = generate_batch(backbone, requests, on_step=on_step)
        for (i, request), frames in zip(group, clips, strict=True):
            if frames is not None:
                metadata = describe(config, request, backbone.card.revision)
                write_clip(paths[i], frames, fps=config.fps, metadata=metadata)
                report(f"generate: {paths[i]}")
    return paths


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
