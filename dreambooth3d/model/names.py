"""Adapter file formats: published (Hunyuan) names, diffusers names, and the pair folder.

Published pairs have one safetensors an adapter, Hunyuan module names, no prefix and scale 1.0
whatever their metadata says (method, section 3). ComfyUI reads the same names.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dreambooth3d.errors import AdapterError
from dreambooth3d.model.lora import LoraAdapter, Role

PUBLISHED_FOLDERS: Mapping[Role, str] = {
    "reference": "lora/tdapter",
    "subject": "lora/subject_adapter",
}
PEFT_PREFIX = "transformer."
PUBLISHED_FILE = "pytorch_lora_weights.safetensors"

_BLOCK_NAMES = {
    "img_attn_q": "attn.to_q",
    "img_attn_k": "attn.to_k",
    "img_attn_v": "attn.to_v",
    "img_attn_proj": "attn.to_out.0",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_attn_q": "attn.add_q_proj",
    "txt_attn_k": "attn.add_k_proj",
    "txt_attn_v": "attn.add_v_proj",
    "txt_attn_proj": "attn.to_add_out",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
}
_PUBLISHED_NAMES = {diffusers: published for published, diffusers in _BLOCK_NAMES.items()}
_SUFFIX = r"\.(lora_[AB])\.weight$"


def from_published(name: str) -> str:
    """Translate one tensor name, `double_blocks.0.img_attn_q.lora_A.weight`, to diffusers' name."""
    match = re.match(r"^double_blocks\.(\d+)\.(.+)" + _SUFFIX, name)
    if match and match[2] in _BLOCK_NAMES:
        return f"transformer_blocks.{match[1]}.{_BLOCK_NAMES[match[2]]}.{match[3]}.weight"
    match = re.match(r"^img_in\.proj" + _SUFFIX, name)
    if match:
        return f"x_embedder.proj.{match[1]}.weight"
    raise AdapterError(
        f"a published tensor name must be img_in.proj or double_blocks.<i>.<linear>, got {name!r}; "
        "check that the file is a 3DreamBooth or 3Dapter LoRA"
    )


def to_published(name: str) -> str:
    """Translate one tensor name from diffusers' to the published form."""
    match = re.match(r"^transformer_blocks\.(\d+)\.(.+)" + _SUFFIX, name)
    if match and match[2] in _PUBLISHED_NAMES:
        return f"double_blocks.{match[1]}.{_PUBLISHED_NAMES[match[2]]}.{match[3]}.weight"
    match = re.match(r"^x_embedder\.proj" + _SUFFIX, name)
    if match:
        return f"img_in.proj.{match[1]}.weight"
    raise AdapterError(
        f"a tensor name must be that of a routed linear, got {name!r}; "
        "export weights of a LoraAdapter"
    )


def to_peft(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prefix diffusers' names as PEFT files have them: `transformer.<linear>.lora_A.weight`."""
    return {PEFT_PREFIX + name: tensor for name, tensor in weights.items()}


def from_peft(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the PEFT prefix off."""
    return {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in weights.items()}


def place_lora(
    transformer: nn.Module, weights: Mapping[str, Tensor], *, role: Role, rank: int, scale: float
) -> LoraAdapter:
    """Put weights in PEFT names beside a transformer, fp32 on the CPU.

    Raises:
        AdapterError: they do not fit this transformer.
    """
    lora = LoraAdapter(transformer, role=role, rank=rank, scale=scale)
    lora.load_weights(from_peft(weights))
    return lora


def rank_of(weights: Mapping[str, Tensor]) -> int:
    """Read the rank from the shape of the first `lora_A`."""
    for name, weight in weights.items():
        if name.endswith("lora_A.weight"):
            return int(weight.shape[0])
    raise AdapterError("adapter weights must hold a lora_A tensor, got none; check the file")


def published_path(folder: Path, role: Role) -> Path:
    """Where a published pair has the weights of one role."""
    return folder / PUBLISHED_FOLDERS[role] / PUBLISHED_FILE


def export_published(folder: Path, weights: Mapping[Role, Mapping[str, Tensor]]) -> None:
    """Write the published pair layout; `weights` are in diffusers' names at scale 1.0."""
    for role, tensors in weights.items():
        path = published_path(folder, role)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not `save_file`: what it makes can be read by its owner alone.
        path.write_bytes(save({to_published(n): t.contiguous() for n, t in tensors.items()}))


def import_published(folder: Path) -> dict[Role, dict[str, Tensor]]:
    """Read a published pair (or one half of it) into diffusers' names."""
    found: dict[Role, dict[str, Tensor]] = {}
    for role in PUBLISHED_FOLDERS:
        path = published_path(folder, role)
        if path.is_file():
            found[role] = {from_published(n): t for n, t in _load(path).items()}
    if not found:
        raise AdapterError(
            f"a published pair must hold {PUBLISHED_FOLDERS['reference']}/{PUBLISHED_FILE} or "
            f"{PUBLISHED_FOLDERS['subject']}/{PUBLISHED_FILE}, got neither in {folder}; "
            "point at the folder that contains lora/"
        )
    return found


def _load(path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise AdapterError(
            f"a published file must be whole safetensors, got {path} ({error}); copy it again"
        ) from error
    return found
