"""An adapter folder: weights, a card, and the reference views themselves; nothing else is needed.

::

    adapter.json               the card (all fields of `AdapterCard`), and ``files``: name -> sha256
    reference.safetensors      the 3Dapter: LoRA on the reference tokens
    subject.safetensors        LoRA on the target and text tokens
    references/001.png ..      the views the adapter is used with, in order, RGB

Tensors carry diffusers' PEFT names, ``transformer.<module>.lora_A.weight`` with shape
(rank, in, ..) and ``transformer.<module>.lora_B.weight`` with shape (out, rank, ..), in memory as
on disk. The update is ``scale * B A``, with the scale stored in the card and nowhere else.
"""

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dreambooth3d.artifacts.image import flatten, read_image
from dreambooth3d.artifacts.jsonfile import JsonValue, read_json, write_json
from dreambooth3d.artifacts.key import content_hash
from dreambooth3d.errors import AdapterError, ArtifactError, ConfigError

Role = Literal["reference", "subject"]
Method = Literal["joint", "3dreambooth", "3dapter"]
ROLES: tuple[Role, ...] = get_args(Role)
CARD_NAME = "adapter.json"
PACKAGED = Path(__file__).parent.parent / "adapters"
"""Adapters that come with the package, each a folder named after its backbone."""

_FORMAT = "dreambooth3d-adapter-1"
_LORA_FORM = re.compile(r"transformer\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_FILE_FORM = re.compile(r"(reference|subject)\.safetensors|references/\d{3}\.png")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": ("3dapter", "subject"),
    "method": ("joint", "3dreambooth", "3dapter"),
    "reference_attention": ("joint", "isolated"),
    "text_scope": ("prompt", "span"),
}
_NONE = type(None)
_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    "kind": (str,),
    "backbone": (str,),
    "backbone_revision": (str,),
    "rank": (int,),
    "scale": (int, float),
    "reference_attention": (str,),
    "reference_time_offset": (int,),
    "method": (str,),
    "trigger": (str, _NONE),
    "class_noun": (str, _NONE),
    "subject": (str, _NONE),
    "num_views": (int,),
    "steps": (int,),
    "seed": (int,),
    "parents": (list,),
    "key": (str,),
    "text_scope": (str,),
    "weights_sha256": (str,),
}
_ROLES_OF_METHOD: Mapping[Method, frozenset[str]] = {
    "joint": frozenset({"reference", "subject"}),
    "3dreambooth": frozenset({"subject"}),
    "3dapter": frozenset({"reference"}),
}


@dataclass(frozen=True, kw_only=True)
class AdapterCard:
    """What an adapter is, what it fits and where it comes from.

    Attributes:
        kind: ``3dapter`` from stage 1, or ``subject`` for one personalised subject.
        backbone: Name of the backbone, for people.
        backbone_revision: Hash of the backbone; what `require_backbone` compares.
        rank: Of every LoRA pair.
        scale: Factor on ``B A``.
        reference_attention: ``joint``: references see all tokens; ``isolated``: only references.
        reference_time_offset: RoPE time index of the first reference view.
        method: Which weights there are: ``joint`` both, ``3dreambooth`` subject, ``3dapter``
            reference.
        trigger: The word trained for the subject; None for a 3Dapter.
        class_noun: What the subject is; None for a 3Dapter.
        subject: Subject id; None for a 3Dapter.
        num_views: Reference views in a training step; for a subject also in the folder.
        steps: Updates trained.
        seed: Of the training run.
        parents: Artifact keys it was made from.
        key: Its own artifact key.
        text_scope: ``prompt``: the text-side delta acts on every text token; ``span``: only on
            the tokens that name the subject.
        weights_sha256: Over the weight files, in hex; filled by `save_adapter`.
    """

    kind: Literal["3dapter", "subject"]
    backbone: str
    backbone_revision: str
    rank: int
    scale: float
    reference_attention: Literal["joint", "isolated"]
    reference_time_offset: int
    method: Method
    trigger: str | None
    class_noun: str | None
    subject: str | None
    num_views: int
    steps: int
    seed: int
    parents: tuple[str, ...]
    key: str
    text_scope: Literal["prompt", "span"] = "prompt"
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(
                    f"adapter {name} must be one of {', '.join(allowed)}, got {value!r}; choose one"
                )
        for name, least in (("rank", 1), ("num_views", 0), ("steps", 0), ("seed", 0)):
            if (number := getattr(self, name)) < least:
                raise ConfigError(
                    f"adapter {name} must be at least {least}, got {number}; pass a larger number"
                )
        if self.kind == "3dapter" and self.method != "3dapter":
            raise ConfigError(
                f"adapter method must be 3dapter for kind 3dapter, got {self.method!r}; "
                "use kind subject"
            )
        if self.kind == "subject" and not (self.subject and self.trigger and self.class_noun):
            raise ConfigError(
                "adapter of kind subject must have subject, trigger and class_noun, got "
                f"{self.subject!r}, {self.trigger!r}, {self.class_noun!r}; pass all three"
            )

    def require_backbone(self, revision: str, *, name: str) -> None:
        """Raise an `AdapterError` unless the adapter was trained on backbone `revision`."""
        if revision != self.backbone_revision:
            raise AdapterError(
                f"adapter {self._name} must be used with backbone {self.backbone} at revision "
                f"{self.backbone_revision}, got {name} at revision {revision}; "
                "load that backbone or train the adapter on this one"
            )

    def require_pretrained(self) -> None:
        """Raise an `AdapterError` unless this is a 3Dapter, not a subject's adapter."""
        if self.kind != "3dapter":
            raise AdapterError(
                f"adapter {self._name} must be a 3Dapter of `python pipelines/pretrain.py`, "
                f"got one of a {self.kind}; name another one"
            )

    def require_attention(self, reference_attention: str) -> None:
        """Raise an `AdapterError` unless the adapter was trained with `reference_attention`."""
        if reference_attention != self.reference_attention:
            raise AdapterError(
                f"adapter {self._name} must be used with reference_attention "
                f"{self.reference_attention}, got {reference_attention}; change the setting or "
                f"train stage 1 again with reference_attention {reference_attention}"
            )

    @property
    def _name(self) -> str:
        return self.subject or self.key


@dataclass(frozen=True, eq=False)
class Adapter:
    """A card, the weights of its roles, and its reference views.

    Attributes:
        card: See `AdapterCard`.
        weights: Role -> PEFT name -> tensor.
        references: RGB views in RoPE order; empty when the method has none.
        folder: Where it was loaded from; None before it was saved.
    """

    card: AdapterCard
    weights: dict[Role, dict[str, torch.Tensor]]
    references: tuple[Image.Image, ...] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        card = self.card
        if set(self.weights) != _ROLES_OF_METHOD[card.method]:
            raise ArtifactError(
                f"weights of method {card.method} must be "
                f"{' and '.join(sorted(_ROLES_OF_METHOD[card.method]))}, "
                f"got {' and '.join(sorted(self.weights)) or 'none'}; pass exactly these"
            )
        if card.kind == "subject" and len(self.references) != card.num_views:
            raise ArtifactError(
                f"references must be the {card.num_views} views of the card, "
                f"got {len(self.references)}; pass all views the adapter was trained with"
            )
        for role, tensors in self.weights.items():
            _check_lora(role, tensors, card.rank)


def save_adapter(folder: Path, adapter: Adapter) -> AdapterCard:
    """Write the files of an adapter into a fresh folder and return the card with its hash.

    Wrap it in `publish` so that the folder appears in one step.
    """
    taken = [
        name
        for name in (CARD_NAME, "references", *map(_weights_name, ROLES))
        if (folder / name).exists()
    ]
    if taken:
        raise ArtifactError(
            f"adapter folder must be fresh, got {', '.join(taken)} in {folder}; use another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for role, tensors in adapter.weights.items():
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        # Not `save_file`: what it makes can be read by its owner alone.
        (folder / _weights_name(role)).write_bytes(save(plain, metadata={"format": "pt"}))
    for number, view in enumerate(adapter.references, start=1):
        path = folder / f"references/{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        flatten(view).save(path, format="PNG")
    names = [_weights_name(role) for role in sorted(adapter.weights)]
    names += [f"references/{number:03d}.png" for number in range(1, len(adapter.references) + 1)]
    files = {name: content_hash(folder / name) for name in names}
    card = dataclasses.replace(adapter.card, weights_sha256=_weights_sha256(files))
    write_json(folder / CARD_NAME, _card_to_json(card, files))
    return card


def load_adapter(folder: Path) -> Adapter:
    """Read an adapter folder after checking every file against its sha256; tensors on the CPU.

    Raises:
        ArtifactError: A file is missing or damaged; the sentence names it.
    """
    found = read_json(folder / CARD_NAME, what="adapter card")
    files = _files_of(found, folder)
    for name, sha256 in files.items():
        _check_file(folder / name, sha256)
    card = _card_from_json(found, folder)
    if card.weights_sha256 != _weights_sha256(files):
        raise ArtifactError(
            f"weights_sha256 must be the hash of the files listed, got {card.weights_sha256!r} in "
            f"{folder / CARD_NAME}; copy the adapter again"
        )
    weights = {
        role: _load_weights(folder / _weights_name(role))
        for role in ROLES
        if _weights_name(role) in files
    }
    views = sorted(name for name in files if name.startswith("references/"))
    references = tuple(read_image(folder / name) for name in views)
    return Adapter(card, weights, references, folder)


def find_adapter(source: str) -> Path:
    """Find an adapter's folder: a packaged one by its name, any other by its path.

    Raises:
        ArtifactError: there is neither.
    """
    for folder in (PACKAGED / source, Path(source)):
        if (folder / CARD_NAME).is_file():
            return folder
    names = ", ".join(sorted(path.name for path in PACKAGED.glob("*/")))
    raise ArtifactError(
        f"an adapter must be a folder with {CARD_NAME} or a packaged one ({names}), "
        f"got {source!r}; correct the name"
    )


def load_card(folder: Path) -> AdapterCard:
    """Read the card alone: no hashing, no tensors."""
    return _card_from_json(read_json(folder / CARD_NAME, what="adapter card"), folder)


def _weights_name(role: str) -> str:
    return f"{role}.safetensors"


def _weights_sha256(files: Mapping[str, str]) -> str:
    names = sorted(name for name in files if name.endswith(".safetensors"))
    return hashlib.sha256(
        "".join(f"{name}\0{files[name]}\n" for name in names).encode()
    ).hexdigest()


def _check_lora(role: str, tensors: Mapping[str, torch.Tensor], rank: int) -> None:
    sides: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        parts = _LORA_FORM.fullmatch(name)
        if parts is None:
            raise ArtifactError(
                f"{role} tensor name must be transformer.<module>.lora_A.weight or lora_B, "
                f"got {name!r}; rename it"
            )
        axis = 0 if parts["side"] == "A" else 1
        if tensor.ndim < 2 or tensor.shape[axis] != rank:
            raise ArtifactError(
                f"{role} tensor {name} must have {rank} in axis {axis}, the rank of the card, "
                f"got shape {tuple(tensor.shape)}; correct the rank"
            )
        sides.setdefault(parts["module"], set()).add(parts["side"])
    for module, present in sides.items():
        if present != {"A", "B"}:
            raise ArtifactError(
                f"{role} weights of {module} must have lora_A and lora_B, "
                f"got lora_{''.join(present)} only; pass both"
            )


def _card_to_json(card: AdapterCard, files: Mapping[str, str]) -> dict[str, JsonValue]:
    fields: dict[str, JsonValue] = dataclasses.asdict(card)
    return fields | {"parents": list(card.parents), "format": _FORMAT, "files": dict(files)}


def _card_from_json(found: Mapping[str, JsonValue], folder: Path) -> AdapterCard:
    path = folder / CARD_NAME
    if found.get("format") != _FORMAT:
        raise ArtifactError(
            f"adapter format must be {_FORMAT}, got {found.get('format')!r} in {path}; "
            "convert the adapter or make it again"
        )
    values: dict[str, Any] = {k: v for k, v in found.items() if k not in ("format", "files")}
    wrong = [name for name, kind in _FIELD_TYPES.items() if not _fits(values, name, kind)]
    wrong += sorted(set(values) - set(_FIELD_TYPES))
    if wrong:
        raise ArtifactError(
            f"adapter card must have exactly its fields with their types, "
            f"got {', '.join(wrong)} missing, wrong or unknown in {path}; copy the adapter again"
        )
    try:
        return AdapterCard(**values | {"parents": tuple(values["parents"])})
    except ConfigError as error:
        raise ArtifactError(f"adapter card must be valid, got {path}; {error}") from error


def _fits(values: Mapping[str, Any], name: str, kind: tuple[type, ...]) -> bool:
    return name in values and isinstance(values[name], kind)


def _files_of(found: Mapping[str, JsonValue], folder: Path) -> dict[str, str]:
    listed = found.get("files")
    files = listed if isinstance(listed, dict) else {}
    names = [name for name, value in files.items() if isinstance(value, str)]
    if not names or len(names) != len(files) or not all(map(_FILE_FORM.fullmatch, names)):
        raise ArtifactError(
            "adapter card must list its weights and references with their sha256, "
            f"got {listed!r} in {folder / CARD_NAME}; copy the adapter again"
        )
    return {name: str(value) for name, value in files.items()}


def _check_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise ArtifactError(
            f"adapter must have every file its card lists, got no {path}; copy the adapter again"
        )
    if (found := content_hash(path)) != sha256:
        raise ArtifactError(
            f"adapter file {path} must have sha256 {sha256}, got {found}; "
            "it is damaged or was changed, copy the adapter again"
        )


def _load_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ArtifactError(
            f"adapter weights must be safetensors, got {path} ({error}); copy the adapter again"
        ) from error
    return tensors


def method_of(roles: Collection[Role]) -> Method:
    """Name the method whose adapters hold the weights of these roles and no others."""
    return next(method for method, held in _ROLES_OF_METHOD.items() if held == set(roles))
