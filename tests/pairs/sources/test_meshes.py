import hashlib
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.artifacts.jsonfile import dump_json
from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError, InputError
from dreambooth3d.pairs.mesh_pairs import caption_of
from dreambooth3d.pairs.mesh_renderer import renderer
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.meshes import MeshesSource
from dreambooth3d.pairs.sources.registry import parse_source
from dreambooth3d.scenes import BACKGROUNDS
from tests.pairs.mesh_samples import MTL, SQUARE, box_glb, png, quarters, write_square, write_zip

REAL = Path(os.environ.get("DREAMBOOTH3D_MESHES", "/usr/share/sweethome3d"))


@pytest.fixture(autouse=True, scope="module")
def _studio() -> None:
    try:
        renderer()
    except ConfigError as error:
        pytest.skip(f"needs EGL: {error}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three models: a GLB, an OBJ in a folder, and an OBJ in a zip, two of one name."""
    root = tmp_path / "models"
    (root / "toys").mkdir(parents=True)
    (root / "toys" / "toy_box-01.glb").write_bytes(box_glb())
    write_square(root / "street_sign")
    members = {p.name: p.read_bytes() for p in (root / "street_sign").iterdir()}
    write_zip(root / "more.zip", {f"street_sign/{name}": data for name, data in members.items()})
    for path in (root / "street_sign").iterdir():
        path.rename(path.with_name(path.name.replace("square.obj", "sign_2.obj")))
    (root / "catalogue.csv").write_text(
        "file,name,licence,attribution\n"
        "street_sign/sign_2.obj,Street Sign,CC-BY-4.0,by Ann\n"
        "more.zip/street_sign/square.obj,street sign,CC0,\n"
    )
    return root


def source(folder: Path, **settings: Any) -> MeshesSource:
    fitting = {"size": 64, "pairs_per_subject": 2, "meshes_per_part": 2, **settings}
    return MeshesSource(place=Place.parse(str(folder)), **fitting)


def read_all(meshes: MeshesSource) -> list[Record]:
    return [record for chunk in meshes.chunks() for record in meshes.read(chunk)]


def pairs_of(records: Sequence[Record]) -> list[RawPair]:
    return [record for record in records if isinstance(record, RawPair)]


def digest(records: Sequence[Record]) -> str:
    whole = hashlib.sha256()
    for record in records:
        whole.update(f"{record.key} {record.origin}".encode())
        if isinstance(record, RawPair):
            assert isinstance(record.reference, Image.Image)
            assert isinstance(record.target, Image.Image)
            assert record.target_mask is not None
            whole.update(record.reference.tobytes() + record.target.tobytes())
            whole.update(
                record.target_mask.tobytes() + repr((record.caption, record.meta)).encode()
            )
    return whole.hexdigest()


def test_chunks_hold_a_fixed_number_of_models(folder: Path) -> None:
    first, second = source(folder).chunks()
    assert (first.index, first.num_records, second.num_records) == (0, 4, 2)
    assert dump_json(first.payload, what="payload")
    assert (folder / "catalogue.csv").name not in str(first.payload)


def test_pairs_show_one_object_alone_and_in_a_place(folder: Path) -> None:
    records = read_all(source(folder))
    pairs = pairs_of(records)
    assert len(pairs) == len(records) == 6
    for pair in pairs:
        assert isinstance(pair.reference, Image.Image)
        assert isinstance(pair.target, Image.Image)
        assert (pair.reference.mode, pair.target.mode) == ("RGBA", "RGB")
        assert pair.reference.size == pair.target.size == (64, 64)
        assert pair.reference_mask is not None
        assert pair.target_mask is not None
        alpha = np.asarray(pair.reference)[..., 3]
        assert (pair.reference_mask == (alpha / 255 >= 0.2)).mean() > 0.995
        assert min(pair.reference_mask.mean(), pair.target_mask.mean()) > 0.01
        # The object stays whole inside both pictures.
        for mask in (pair.reference_mask, pair.target_mask):
            assert not mask[[0, -1]].any()
            assert not mask[:, [0, -1]].any()
        assert pair.meta["background"] in BACKGROUNDS
        assert pair.caption == f"a photo of a {pair.class_noun} {pair.meta['background']}"
        turn = float(str(pair.meta["target_azimuth_deg"])) - float(
            str(pair.meta["reference_azimuth_deg"])
        )
        assert 19.9 <= min(turn % 360, -turn % 360) <= 150.1
    keys = [pair.key for pair in pairs]
    assert len(set(keys)) == len(keys)
    assert all(len(key) <= 48 and set(key) <= set("0123456789abcdef-") for key in keys)


def test_the_object_in_the_target_has_the_colours_of_the_reference(folder: Path) -> None:
    for pair in pairs_of(read_all(source(folder))):
        assert pair.target_mask is not None
        seen = np.asarray(pair.target)[pair.target_mask].astype(int)
        # Pure colours in any light; the scenery has none so strong.
        assert (np.ptp(seen, axis=1) > 80).mean() > 0.7


def test_names_licences_and_subjects_come_from_the_catalogue(folder: Path) -> None:
    found = {pair.origin: pair for pair in pairs_of(read_all(source(folder)))}
    sign, packed = found["street_sign/sign_2.obj"], found["more.zip/street_sign/square.obj"]
    assert (sign.class_noun, sign.licence, sign.attribution) == (
        "street sign",
        "CC-BY-4.0",
        "by Ann",
    )
    assert (packed.licence, packed.subject) == ("CC0-1.0", sign.subject)
    box = found["toys/toy_box-01.glb"]
    assert (box.class_noun, box.subject, box.licence) == ("toy box", "toy-box", "")


def test_the_same_settings_give_the_same_bytes_in_any_order(folder: Path) -> None:
    meshes = source(folder)
    first, second = meshes.chunks()
    forwards = [list(meshes.read(first)), list(meshes.read(second))]
    copy = pickle.loads(pickle.dumps(meshes))  # noqa: S301  our own bytes
    backwards = [list(copy.read(second)), list(copy.read(first))][::-1]
    assert [digest(part) for part in forwards] == [digest(part) for part in backwards]
    assert digest(read_all(replace(meshes, seed=1))) != digest(read_all(meshes))


def test_remarks_tell_of_models_that_are_not_read(folder: Path) -> None:
    assert len(source(folder).remarks()) == 1
    (folder / "cone.STL").write_bytes(b"solid")
    (folder / "notes.txt").write_bytes(b"")
    assert source(folder).remarks()[1] == (
        "models that are not read 1, such as cone.STL: export them as GLB or OBJ, or they are "
        "left out"
    )


def test_more_models_leave_the_pairs_of_others_alone(folder: Path) -> None:
    before = {pair.key: digest([pair]) for pair in pairs_of(read_all(source(folder)))}
    (folder / "a_ball.glb").write_bytes(box_glb())
    after = {pair.key: digest([pair]) for pair in pairs_of(read_all(source(folder)))}
    assert len(after) == len(before) + 2
    assert {key: after[key] for key in before} == before


OTHER_PROCESS = """
import sys
from pathlib import Path
from tests.pairs.sources.test_meshes import digest, read_all, source
print(digest(read_all(source(Path(sys.argv[1])))))
"""


def test_another_process_gives_the_same_bytes(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(folder)],
        env={**os.environ, "PYTHONHASHSEED": "11", "OMP_NUM_THREADS": "2", "LP_NUM_THREADS": "2"},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == digest(read_all(source(folder))), done.stderr


def test_the_fingerprint_follows_content_and_settings(folder: Path, tmp_path: Path) -> None:
    before = source(folder).fingerprint()
    folder.rename(tmp_path / "elsewhere")
    moved = source(tmp_path / "elsewhere")
    assert moved.fingerprint() == before
    for change in ({"seed": 1}, {"up": "z"}, {"size": 65}):
        assert source(tmp_path / "elsewhere", **change).fingerprint() != before
    (tmp_path / "elsewhere" / "street_sign" / "paint.png").write_bytes(png(quarters(32)))
    assert moved.fingerprint() != before


def test_own_backgrounds_are_used_and_name_the_place(folder: Path, tmp_path: Path) -> None:
    places = tmp_path / "places"
    places.mkdir()
    Image.new("RGB", (300, 200), (10, 200, 30)).save(places / "on a green lawn 02.png")
    meshes = source(folder, backgrounds=Place.parse(str(places)))
    for pair in pairs_of(read_all(meshes)):
        assert pair.caption.endswith(f"{pair.class_noun} on a green lawn")
        assert np.asarray(pair.target)[1, 1].tolist() == [10, 200, 30]
    assert meshes.fingerprint() != source(folder).fingerprint()
    (places / "on a green lawn 02.png").write_bytes(b"no picture")
    (rejected, *_) = read_all(meshes)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.sentence[:18]) == ("unreadable_picture", "background: image ")
    (places / "on a green lawn 02.png").unlink()
    with pytest.raises(InputError, match="backgrounds must be a folder of pictures"):
        meshes.chunks()


def test_bad_models_are_records_and_the_others_follow(folder: Path) -> None:
    (folder / "broken.glb").write_bytes(box_glb()[:300])
    (folder / "broken.zip").write_bytes(b"PK")
    write_zip(folder / "climb.zip", {"../up.obj": SQUARE, "up.mtl": MTL})
    (folder / "line\nfeed.obj").write_text("v nan 0 0\nf 1 1 1\n")
    with (folder / "catalogue.csv").open("a") as file:
        file.write("gone.glb,Gone,,\n")
    records = read_all(source(folder))
    assert len(pairs_of(records)) == 6
    found = {r.origin: r for r in records if isinstance(r, Rejected)}
    assert set(found) == {
        "broken.glb", "broken.zip", "climb.zip/../up.obj", "line\\nfeed.obj", "gone.glb",
    }  # fmt: skip
    assert {rejected.reason for rejected in found.values()} == {"bad_mesh"}
    assert "got nothing at gone.glb" in found["gone.glb"].sentence
    # By which the corpus says of whom it has no pair.
    assert (found["gone.glb"].subject, found["broken.glb"].subject) == ("gone", "broken")
    assert all(rejected.subject for rejected in found.values())


# A needle: less than two pixels of 256 thick.
NEEDLE = SQUARE.replace("-1 0\n", "-0.005 0\n").replace(" 1 0\nv", " 0.005 0\nv")


@pytest.mark.parametrize(
    ("mtl", "obj", "reason"),
    [
        ("newmtl paint\nKd 0 0 0\nKs 0 0 0\n", SQUARE, "flat_colours"),
        ("newmtl paint\nKd 1 1 1\nd 0.01\n", SQUARE, "no_object"),
        (MTL, NEEDLE, "object_too_small"),
    ],
)
def test_renders_that_show_nothing_are_refused_with_their_picture(
    tmp_path: Path, mtl: str, obj: str, reason: str
) -> None:
    write_square(tmp_path, mtl=mtl, obj=obj)
    for record in read_all(source(tmp_path, size=256)):
        assert isinstance(record, Rejected)
        assert record.reason == reason
        assert record.picture is not None
        assert record.subject


def test_a_place_without_models_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="meshes must be GLB, glTF or OBJ files"):
        source(tmp_path).chunks()
    with pytest.raises(InputError, match="got none in"):
        source(tmp_path / "nowhere").chunks()


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 8},
        {"pairs_per_subject": 0},
        {"meshes_per_part": 0},
        {"seed": -1},
        {"up": "x"},
        {"min_object_share": 1.0},
        {"max_triangles": 0},
    ],
)
def test_settings_are_checked(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} must be"):
        source(tmp_path, **settings)


def test_a_source_is_made_by_name(folder: Path) -> None:
    settings = {"size": 64, "pairs_per_subject": 2, "meshes_per_part": 2}
    assert parse_source(f"meshes:{folder}", settings) == source(folder)


def test_captions() -> None:
    assert caption_of("umbrella", "on a beach") == "a photo of an umbrella on a beach"
    assert caption_of("bed", "") == "a photo of a bed"
    assert caption_of("", "on a beach") == ""


@pytest.mark.skipif(
    not REAL.is_dir(),
    reason="needs the models of Debian's sweethome3d-furniture: install the package, or unpack it "
    "and set DREAMBOOTH3D_MESHES",
)
def test_published_furniture_renders() -> None:
    meshes = MeshesSource(
        place=Place.parse(str(REAL)), size=96, pairs_per_subject=1, meshes_per_part=8
    )
    chunks = meshes.chunks()
    assert sum(chunk.num_records for chunk in chunks) == 820
    records = list(meshes.read(chunks[20]))
    pairs = pairs_of(records)
    assert len(pairs) >= 0.8 * len(records)
    licences = Counter(pair.licence for pair in pairs)
    assert set(licences) <= {"CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US"}
    assert all(pair.attribution and pair.class_noun for pair in pairs)
    assert all(r.reason == "bad_mesh" for r in records if isinstance(r, Rejected))
