from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dreambooth3d.errors import ArtifactError
from dreambooth3d.model.parity import check_file, main

VISIBLE = Path(__file__).parents[1] / "data" / "parity_visible.safetensors"


def test_golden_vectors_match() -> None:
    results = list(check_file(VISIBLE))
    assert [r.name for r in results] == [
        "plain", "stage1", "joint_1ref", "joint_3refs", "joint_video",
    ]  # fmt: skip
    assert all(r.is_ok for r in results), [r.line() for r in results]
    assert [r.loss is not None for r in results] == [False, False, True, True, False]


def test_command_prints_a_line_a_case_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(VISIBLE)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all("max_abs_diff=" in line and line.endswith("ok") for line in lines)


def _changed(tmp_path: Path, name: str, amount: float) -> Path:
    with safe_open(VISIBLE, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors[name] = tensors[name] + amount
    save_file(tensors, tmp_path / "changed.safetensors", metadata=metadata)
    return tmp_path / "changed.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "joint_3refs/out",
        "joint_3refs/loss",
        "joint_1ref/grad/tdapter/img_in.proj.lora_B.weight",
        "official_subject_adapter/double_blocks.0.txt_mlp.fc1.lora_B.weight",
    ],
)
def test_a_difference_of_a_ten_thousandth_fails(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(_changed(tmp_path, name, 1e-3))]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["plain/out", "joint_1ref/grad/tdapter/img_in.proj.lora_B.weight", "joint_1ref/loss"]
)
def test_not_a_number_fails(tmp_path: Path, name: str) -> None:
    assert main([str(_changed(tmp_path, name, float("nan")))]) == 1


def test_missing_and_foreign_files_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent.safetensors")]) == 1
    assert "must be a file" in capsys.readouterr().err
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="spec"):
        list(check_file(tmp_path / "x.safetensors"))
    (tmp_path / "text.safetensors").write_text("hello")
    assert main([str(tmp_path / "text.safetensors")]) == 1
