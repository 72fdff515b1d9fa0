"""Make clips without a server: batches of equal shape, in this process or in Ray Data actors."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from dreambooth3d.artifacts.adapter import load_card
from dreambooth3d.artifacts.clip import write_clip
from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.errors import RunError
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.generate.generate import (
    ClipRequest,
    generate_batch,
    load_subject,
    make_request,
    resolve,
)
from dreambooth3d.model.backbone import read_card
from dreambooth3d.runtime.backbones import warm_backbone
from dreambooth3d.runtime.session import last_line, num_cores, quiet_data_logs, ray_session

STAGE, REVISION = "generate", 1
_SAMPLER_SETTINGS = (
    "steps", "guidance_scale", "guided_above", "reference_guidance_scale", "negative_prompt",
)  # fmt: skip
# An adapter folder (None: the plain backbone) and a prompt.
Order = tuple[Path | None, str]
# The same with the order's index and the path of its clip.
_Todo = tuple[Path | None, str, int, Path]


def clip_path(
    config: GenerateConfig, adapter: Path | None, prompt: str, out: Path, index: int = 0
) -> Path:
    """Name a clip by its content key: settings as resolved, prompt, backbone, adapter."""
    backbone = read_card(config.backbone)
    card = None if adapter is None else load_card(adapter)
    settings = versioned_fields(resolve(config, backbone)) | {"prompt": prompt}
    settings |= {"seed": config.seed + index}
    settings.pop("backbone")
    parents = [backbone.revision]
    # Weights alone do not make a clip: views, trigger and noun are in the adapter's own key.
    parents += [] if card is None else [card.key, card.weights_sha256]
    name = "plain" if card is None else card.subject or card.kind
    return out / f"{name}-{artifact_key(STAGE, REVISION, settings, parents)}.mp4"


def indices(orders: Sequence[Order]) -> list[int]:
    """Count each order among those of the same adapter: what moves its seed on.

    A clip must not depend on the other rows of a table.
    """
    seen: Counter[Path | None] = Counter()
    found = []
    for adapter, _ in orders:
        found.append(seen[adapter])
        seen[adapter] += 1
    return found


def plan(config: GenerateConfig, orders: Sequence[Order], out: Path) -> dict[str, Any]:
    """Say what `run` would do, without doing it."""
    check_adapters(config, orders)
    card = read_card(config.backbone)
    full = resolve(config, card)
    paths = [clip_path(config, *o, out, i) for o, i in zip(orders, indices(orders), strict=True)]
    return {
        "inputs": [{"adapter": str(adapter), "prompt": prompt} for adapter, prompt in orders],
        "clips": [str(path) + (" (exists)" if path.is_file() else "") for path in paths],
        "size": f"{full.width} x {full.height}, {full.num_frames} frames, {full.steps} steps",
        "backbone": f"{card.name} ({card.revision})",
    }


def check_adapters(config: GenerateConfig, orders: Sequence[Order]) -> None:
    """Refuse an adapter of another backbone or attention mode before anything is loaded."""
    backbone = read_card(config.backbone)
    for adapter in {adapter for adapter, _ in orders if adapter is not None}:
        card = load_card(adapter)
        card.require_backbone(backbone.revision, name=backbone.name)
        if config.reference_attention != "adapter":
            card.require_attention(config.reference_attention)


def run(
    config: GenerateConfig,
    orders: Sequence[Order],
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Make one clip for each (adapter folder, prompt); clips that exist are kept."""
    paths, todo = _find_todo(config, orders, out, report)
    if todo:
        _make(config, todo, report)
    return paths


def run_in_actors(
    config: GenerateConfig,
    orders: Sequence[Order],
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Make the same clips by Ray Data actors, one for each GPU or core with a backbone of its own.

    On several nodes the adapters and `out` must be on storage that all of them share.

    Raises:
        RunError: a clip could not be made; those that are finished are kept.
    """
    paths, todo = _find_todo(config, orders, out, report)
    if not todo:
        return paths
    with ray_session():
        quiet_data_logs()
        num_gpus = int(ray.cluster_resources().get("GPU", 0))
        num_actors = min(num_gpus or num_cores(), len(todo))
        share = min(config.batch_size, math.ceil(len(todo) / num_actors))
        parts = [todo[start : start + share] for start in range(0, len(todo), share)]
        rows = [{"orders": json.dumps(part, default=str)} for part in parts]
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Maker,
            fn_constructor_kwargs={"config": config},
            compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(parts))),
            num_gpus=1 if num_gpus else 0,
        )
        _follow(made, len(todo), report)
    return paths


class _Maker:
    """An actor that makes clips with the one backbone it holds."""

    def __init__(self, config: GenerateConfig) -> None:
        self._config = config

    def __call__(self, row: dict[str, str]) -> dict[str, int]:
        todo = [
            (None if adapter is None else Path(adapter), prompt, index, Path(path))
            for adapter, prompt, index, path in json.loads(row["orders"])
        ]
        _make(self._config, todo, lambda line: None)
        return {"num_clips": len(todo)}


def _follow(made: ray.data.Dataset, total: int, report: Callable[[str], None]) -> None:
    """Say how far the actors are; a failure of one is one sentence."""
    started, done = time.monotonic(), 0
    try:
        for row in made.iter_rows():
            done += row["num_clips"]
            left = (time.monotonic() - started) / done * (total - done)
            report(f"generate: {done}/{total} clips, eta {left:.0f} s")
    except RayError as error:
        raise RunError(
            f"every clip must be made, got: {last_line(error)}; "
            "run the same command again, finished clips are kept"
        ) from error


def _find_todo(
    config: GenerateConfig, orders: Sequence[Order], out: Path, report: Callable[[str], None]
) -> tuple[list[Path], list[_Todo]]:
    """Name every clip, and list those that are not there yet."""
    check_adapters(config, orders)
    places = indices(orders)
    paths = [clip_path(config, *o, out, i) for o, i in zip(orders, places, strict=True)]
    for path in [path for path in paths if path.is_file()]:
        report(f"generate: {path} exists already, nothing to do")
    named = zip(orders, places, paths, strict=True)
    return paths, [(*order, place, path) for order, place, path in named if not path.is_file()]


def _make(config: GenerateConfig, todo: Sequence[_Todo], report: Callable[[str], None]) -> None:
    backbone = warm_backbone(config.backbone, config.precision)
    loaded = {
        adapter: load_subject(adapter, backbone)
        for adapter in {adapter for adapter, *_ in todo}
        if adapter is not None
    }
    groups: dict[tuple[object, ...], list[tuple[Path, ClipRequest]]] = {}
    for adapter, prompt, index, path in todo:
        subject = None if adapter is None else loaded[adapter]
        request = make_request(config, backbone.card, prompt, subject, index=index)
        groups.setdefault(request.batch_key, []).append((path, request))
    for group in groups.values():
        for start in range(0, len(group), config.batch_size):
            part = group[start : start + config.batch_size]
            clips = generate_batch(
                backbone, [request for _, request in part], on_step=_announce(len(part), report)
            )
            for (path, request), frames in zip(part, clips, strict=True):
                assert frames is not None  # nothing here drops a row
                metadata = describe(config, request, backbone.card.revision)
                write_clip(path, frames, fps=config.fps, metadata=metadata)
                report(f"generate: {path}")


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
        "sampler": {k: v for k, v in asdict(config).items() if k in _SAMPLER_SETTINGS}
        | {"flow_shift": request.flow_shift},
    }
