import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreambooth3d.artifacts.chunks import ChunkContent, ChunkSpec, ensure_chunks, plan_chunks

SPEC = ChunkSpec(kind="image", index=0, num_scenes=4, first_seed=0, num_frames=1, size=8)


def render(spec: ChunkSpec) -> ChunkContent:
    return ChunkContent(arrays={"seeds": np.array(spec.seeds)}, notes=list(spec.seeds))


def refuse(spec: ChunkSpec) -> ChunkContent:
    raise AssertionError("must not be rendered again")


def test_a_chunk_is_rendered_once_and_again_when_its_spec_changes(tmp_path: Path) -> None:
    ensure_chunks([SPEC], tmp_path, render, workers=1)
    (kept,) = ensure_chunks([SPEC], tmp_path, refuse, workers=1)
    assert list(kept.arrays["seeds"]) == [0, 1, 2, 3]
    (other,) = ensure_chunks([replace(SPEC, first_seed=9)], tmp_path, render, workers=1)
    assert list(other.arrays["seeds"]) == [9, 10, 11, 12]
    with pytest.raises(AssertionError, match="rendered again"):
        ensure_chunks([replace(SPEC, first_seed=9, revision=1)], tmp_path, refuse, workers=1)


def test_a_rendering_that_was_cut_short_leaves_no_chunk(tmp_path: Path) -> None:
    ensure_chunks([SPEC], tmp_path, render, workers=1)

    class Unsaved:
        """Stands for a process that ends while it writes its arrays."""

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise KeyboardInterrupt

    def cut_short(spec: ChunkSpec) -> ChunkContent:
        return ChunkContent(arrays={"seeds": Unsaved()}, notes=[])  # type: ignore[dict-item]

    with pytest.raises(KeyboardInterrupt):
        ensure_chunks([replace(SPEC, num_scenes=2)], tmp_path, cut_short, workers=1)
    with pytest.raises(AssertionError, match="rendered again"):
        ensure_chunks([SPEC], tmp_path, refuse, workers=1)


@pytest.mark.parametrize("damage", ["array", "note", "words"])
def test_a_damaged_chunk_is_rendered_again(tmp_path: Path, damage: str) -> None:
    ensure_chunks([SPEC], tmp_path, render, workers=1)
    note = tmp_path / "image-0000.json"
    if damage == "array":
        (tmp_path / "image-0000.seeds.npy").unlink()
    elif damage == "note":
        found = json.loads(note.read_text())
        note.write_text(json.dumps(found | {"notes": found["notes"][:2]}))
    else:
        note.write_text("{")
    (again,) = ensure_chunks([SPEC], tmp_path, render, workers=1)
    assert len(again.arrays["seeds"]) == len(again.notes) == 4


def test_names_of_content_change_with_it() -> None:
    one, other = plan_chunks("clip", 6, chunk=4, first_seed=0, num_frames=5, size=8)
    assert one.digest != other.digest
    assert one.digest == replace(one).digest
    assert one.digest != replace(one, revision=3).digest
