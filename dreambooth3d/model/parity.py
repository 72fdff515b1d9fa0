"""Golden vectors: `python -m dreambooth3d.model.parity FILE.safetensors`.

Runs every case of a golden-vector file through this project's forward and prints one line a case
with the maximum absolute difference of the output and, where the file has them, the relative
differences of the loss and of the adapter gradients. Exit code 1 above 1e-5.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dreambooth3d.errors import ArtifactError, Dreambooth3dError
from dreambooth3d.model.forward import denoise
from dreambooth3d.model.lora import LoraAdapter, Role
from dreambooth3d.model.names import from_published, rank_of, to_published
from dreambooth3d.model.routing import Routes
from dreambooth3d.model.texts import TextStates

TOLERANCE = 1e-5
_PREFIXES: dict[Role, str] = {
    "reference": "official_tdapter",
    "subject": "official_subject_adapter",
}
# The only backbone tensors a file may leave out: no ByT5 token is ever valid in a case.
_FREE = "context_embedder_2."


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """Differences of one case; `loss` and `gradient` are relative and None where not recorded."""

    name: str
    output: float
    loss: float | None
    gradient: float | None

    @property
    def is_ok(self) -> bool:
        """Whether every difference is within tolerance (not-a-number is not)."""
        found = [d for d in (self.output, self.loss, self.gradient) if d is not None]
        return all(d <= TOLERANCE for d in found)

    def line(self) -> str:
        """One printable line."""
        text = f"{self.name} max_abs_diff={self.output:.3e}"
        if self.loss is not None:
            text += f" loss_rel={self.loss:.3e}"
        if self.gradient is not None:
            text += f" grad_rel={self.gradient:.3e}"
        return f"{text} {'ok' if self.is_ok else 'FAIL'}"


def check_file(path: Path) -> Iterator[CaseResult]:
    """Run every case of a golden-vector file."""
    tensors, spec = _read(path)
    transformer = _build_backbone(spec["config"], tensors)
    adapters = {role: _build_adapter(transformer, role, tensors) for role in _PREFIXES}
    if not spec["cases"]:
        raise ArtifactError(f"{path} must have cases, got none; regenerate the file")
    for name, case in spec["cases"].items():
        yield _run_case(name, case, transformer, adapters, tensors)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise ArtifactError(f"golden vectors must be a file, got {path}; check the path")
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ArtifactError(f"{path} must be a safetensors file, got: {error}") from error
    if "spec" not in metadata:
        raise ArtifactError(f"{path} must have `spec` in its metadata, got {sorted(metadata)}")
    spec: dict[str, Any] = json.loads(metadata["spec"])
    return tensors, spec


def _build_backbone(config: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    from diffusers import HunyuanVideo15Transformer3DModel

    transformer: nn.Module = HunyuanVideo15Transformer3DModel(**config).eval()
    base = {k.removeprefix("base/"): v for k, v in tensors.items() if k.startswith("base/")}
    missing, unknown = transformer.load_state_dict(base, strict=False)
    missing = [name for name in missing if not name.startswith(_FREE)]
    if missing or unknown:
        raise ArtifactError(
            f"golden base tensors must be those of the configured backbone, got missing {missing} "
            f"and unknown {unknown}; regenerate the file"
        )
    return transformer.requires_grad_(False)


def _build_adapter(
    transformer: nn.Module, role: Role, tensors: dict[str, Tensor]
) -> LoraAdapter | None:
    prefix = f"{_PREFIXES[role]}/"
    published = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if not published:
        return None
    adapter = LoraAdapter(transformer, role=role, rank=rank_of(published))
    adapter.load_weights({from_published(name): tensor for name, tensor in published.items()})
    return adapter


def _run_case(
    name: str,
    case: dict[str, Any],
    transformer: nn.Module,
    adapters: dict[Role, LoraAdapter | None],
    tensors: dict[str, Tensor],
) -> CaseResult:
    routes = Routes(
        subject=adapters["subject"] if case["mode"] == "joint" else None,
        reference=None if case["mode"] == "plain" else adapters["reference"],
    )
    valid = tensors[f"{name}/mask"].sum(dim=1).tolist()
    texts = [
        TextStates(states_SD=row[: int(count)])
        for row, count in zip(tensors[f"{name}/txt"], valid, strict=True)
    ]
    out = denoise(
        transformer,
        tensors[f"{name}/lat"],
        tensors[f"{name}/t"],
        texts,
        routes=routes,
        references_BVCHW=tensors.get(f"{name}/refs"),
    )
    output = (out - tensors[f"{name}/out"]).abs().max().item()
    if f"{name}/target" not in tensors:
        return CaseResult(name=name, output=output, loss=None, gradient=None)
    loss = torch.nn.functional.mse_loss(out, tensors[f"{name}/target"])
    golden = tensors[f"{name}/loss"].item()
    return CaseResult(
        name=name,
        output=output,
        loss=abs(loss.item() - golden) / abs(golden),
        gradient=_gradient_difference(name, loss, routes, tensors),
    )


def _gradient_difference(
    name: str, loss: Tensor, routes: Routes, tensors: dict[str, Tensor]
) -> float:
    """Largest difference of any gradient element, relative to that adapter's largest gradient."""
    routed = (routes.subject, routes.reference)
    present = {a.role: a for a in routed if isinstance(a, LoraAdapter)}
    for adapter in present.values():
        adapter.zero_grad(set_to_none=True)
    loss.backward()
    worst = 0.0
    for role, adapter in present.items():
        folder = f"{name}/grad/{_PREFIXES[role].removeprefix('official_')}"
        differences, sizes = [], []
        for own_name, weight in adapter.named_weights():
            key = f"{folder}/{to_published(own_name)}"
            if key not in tensors:
                raise ArtifactError(f"golden gradients must be complete, got no {key!r}")
            # A factor that cannot reach the output has no gradient here and a zero one there.
            own = torch.zeros_like(weight) if weight.grad is None else weight.grad
            differences.append((own - tensors[key]).abs().max().item())
            sizes.append(tensors[key].abs().max().item())
        difference = torch.tensor(differences).max().item() / max(*sizes, 1e-30)
        worst = max(worst, difference) if difference == difference else float("inf")
    return worst


def main(arguments: list[str]) -> int:
    """Check the files named on the command line."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m dreambooth3d.model.parity FILE.safetensors [FILE ...]")
        return 0 if arguments else 2
    is_ok = True
    for argument in arguments:
        try:
            for result in check_file(Path(argument)):
                print(result.line(), flush=True)
                is_ok &= result.is_ok
        except Dreambooth3dError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            print(f"error: {argument} must be a golden-vector file, got {error!r}", file=sys.stderr)
            return 1
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
