"""The whole stage on a real Ray: two sources, any number of workers, and a second run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dreambooth3d.errors import InputError
from dreambooth3d.pairs import job
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.runtime.session import ray_session
from tests.pairs.corpora import build_here
from tests.pairs.test_corpus import album, files

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session():
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PairsConfig:
    home = album(tmp_path_factory.mktemp("photos") / "album")
    (home / "mug" / "9.png").write_bytes(b"")
    return PairsConfig(
        sources=("scenes", f"captures:{home}"), samples=10, samples_per_shard=4, size=32,
        pairs_per_subject=4, segmentation="plain", identity="none", max_bad_fraction=0.5,
    )  # fmt: skip


def run(config: PairsConfig, out: Path) -> tuple[Path, list[str]]:
    said: list[str] = []
    manifest = job.run(config, out, report=said.append)
    return out / manifest.key, said


def test_any_number_of_workers_gives_the_bytes_of_one_process(
    config: PairsConfig, tmp_path: Path
) -> None:
    (tmp_path / "blocked.txt").write_text("nobody\n")
    config = replace(config, blocklist=str(tmp_path / "blocked.txt"))
    expected, _ = build_here(config, tmp_path / "here")
    for workers in (1, 2):
        folder, said = run(replace(config, workers=workers), tmp_path / str(workers))
        assert files(folder) == files(expected)
        assert said[0] == "pairs: captures: objects 2, pictures 9, pairs 8"
        assert any("dropped" in line for line in said)
        assert any("match no subject 1 of 1, such as 'nobody'" in line for line in said)
        assert said[-1].startswith(f"pairs {folder.name}: ")


def test_what_is_finished_is_kept_and_damage_is_made_again(
    config: PairsConfig, tmp_path: Path
) -> None:
    folder, _ = run(config, tmp_path)
    whole = files(folder)
    _, said = run(config, tmp_path)
    assert said == [f"pairs {folder.name}: already built, nothing to do"]
    # As after a kill: nothing published, a part without its record, another damaged.
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    parts = sorted(tmp_path.glob(".parts-*/scenes-*.tar"))
    parts[0].with_name("scenes-000000.record.json").unlink()
    damaged = bytearray(parts[1].read_bytes())
    parts[1].unlink()
    parts[1].write_bytes(bytes([damaged[0] ^ 1, *damaged[1:]]))
    _, said = run(config, tmp_path)
    assert files(folder) == whole
    assert any("parts kept" in line for line in said)


def test_a_broken_source_is_one_sentence(config: PairsConfig, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"at most 0% broken records.*max_bad_fraction=0\.\d+ to go on"
    ):
        run(replace(config, max_bad_fraction=0.0), tmp_path)


def test_a_place_that_cannot_hold_corpora_is_refused(config: PairsConfig, tmp_path: Path) -> None:
    inside = tmp_path / "album" / "pairs"
    with pytest.raises(InputError, match=r"corpora must lie outside .* name another place"):
        job.run(replace(config, sources=(f"captures:{tmp_path / 'album'}",)), inside)
    with pytest.raises(InputError, match="corpora must be where all workers reach them"):
        job.plan(config, "memory://pairs")
    assert not inside.exists()


def test_latents_come_from_actors_and_are_those_of_one_process(
    config: PairsConfig, tmp_path: Path, miniature: Path
) -> None:
    config = replace(config, sources=("scenes",), samples=6, encode=str(miniature))
    expected, _ = build_here(config, tmp_path / "here")
    folder, _ = run(config, tmp_path / "ray")
    assert files(folder) == files(expected)
