from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideo15Transformer3DModel
from safetensors.torch import save_file
from torch import nn

from dreambooth3d.errors import AdapterError
from dreambooth3d.model.forward import denoise
from dreambooth3d.model.lora import LoraAdapter, RowLoras
from dreambooth3d.model.names import (
    export_published,
    from_peft,
    from_published,
    import_published,
    rank_of,
    to_peft,
    to_published,
)
from dreambooth3d.model.routing import Routes
from tests.model.conftest import latents, text

MakeLora = Callable[..., LoraAdapter]


@pytest.mark.parametrize(
    ("role", "num_parameters", "num_tensors"),
    [("reference", 31_884_304, 650), ("subject", 63_734_800, 1_298)],
)
def test_sizes_on_the_full_model(role: str, num_parameters: int, num_tensors: int) -> None:
    with torch.device("meta"):
        full = HunyuanVideo15Transformer3DModel()
        lora = LoraAdapter(full, role=role, rank=16)
    weights = dict(lora.named_weights())
    assert sum(w.numel() for w in weights.values()) == num_parameters
    assert len(weights) == num_tensors
    assert all(from_published(to_published(name)) == name for name in weights)


def test_published_pair_round_trip(tmp_path: Path, make_lora: MakeLora) -> None:
    loras = {"reference": make_lora("reference", 1), "subject": make_lora("subject", 2)}
    export_published(tmp_path, {role: lora.weights() for role, lora in loras.items()})
    assert (tmp_path / "lora/tdapter/pytorch_lora_weights.safetensors").is_file()
    found = import_published(tmp_path)
    for role, lora in loras.items():
        assert rank_of(found[role]) == lora.rank
        for name, weight in lora.named_weights():
            assert torch.equal(found[role][name], weight)


def test_what_is_no_published_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="tdapter"):
        import_published(tmp_path)
    with pytest.raises(AdapterError, match=r"single_blocks\.0"):
        from_published("single_blocks.0.linear1.lora_A.weight")


def test_weights_of_another_backbone_are_refused(make_lora: MakeLora) -> None:
    lora = make_lora("reference", 1)
    weights = lora.weights()
    name = next(iter(weights))
    with pytest.raises(AdapterError, match=f"{name}.*missing"):
        lora.load_weights({k: v for k, v in weights.items() if k != name})
    with pytest.raises(AdapterError, match="unknown"):
        lora.load_weights({**weights, "other": torch.zeros(1)})
    with pytest.raises(AdapterError, match="shape"):
        lora.load_weights({**weights, name: torch.zeros(1, 2)})


@torch.no_grad()
def test_peft_reads_our_file_and_computes_the_same(
    transformer: nn.Module, make_lora: MakeLora, tmp_path: Path
) -> None:
    """The subject adapter without references is an ordinary LoRA: diffusers + PEFT must agree."""
    lora = make_lora("subject", 3)
    save_file(to_peft(lora.weights()), tmp_path / "subject.safetensors")
    patched = HunyuanVideo15Transformer3DModel.from_config(transformer.config)
    patched.load_state_dict(transformer.state_dict())
    patched.eval().load_lora_adapter(tmp_path / "subject.safetensors", prefix="transformer")
    ours = denoise(
        transformer, latents(1), torch.tensor([300.0]), [text(5, 1)], routes=Routes(subject=lora)
    )
    theirs = denoise(patched, latents(1), torch.tensor([300.0]), [text(5, 1)])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert from_peft(to_peft(lora.weights())).keys() == lora.weights().keys()


def test_rows_need_an_adapter() -> None:
    with pytest.raises(AdapterError, match="at least one"):
        RowLoras([None, None])
