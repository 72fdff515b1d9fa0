from pathlib import Path

import pytest

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import InputError
from dreambooth3d.pairs.mesh_catalogue import (
    Entry,
    read_catalogue,
    read_properties,
    spdx,
    subject_of,
)
from dreambooth3d.pairs.mesh_files import ModelFile, open_files
from dreambooth3d.pairs.nouns import clean_name, name_of_file, name_of_folder
from tests.pairs.mesh_samples import write_zip

PROPERTIES = """# comment
name=Blend Swap CC-0
license=Public domain
provider=www.example.org

id#1=one
name#1=Table \\u00e0 th\xe9
creator#1=Jos\xe9
model#1=/models/table/table.obj
modelRotation#1=1 0 0 0 0 1 0 -1 0
name#2=Bed
model#2=/models/bed.obj
modelRotation#2=1 0 zero
"""


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("lamps/table_lamp-02.glb", "table lamp"),
        ("OfficeChair3.obj", "office chair"),
        ("a/Duck/glTF/scene.gltf", "duck"),
        ("chair_v2_b.glb", "chair"),
        ("Sony TV.glb", "sony TV"),
        ("0001.obj", ""),
        ("model.obj", ""),
        ("Ёлка 2.glb", "ёлка"),
        ("bad\nname\x07.obj", "bad name"),
    ],
)
def test_names_of_files_become_nouns(file: str, name: str) -> None:
    assert name_of_file(file) == name


def test_names_of_folders_have_no_ending() -> None:
    assert name_of_folder("shelf/Dr. Pepper can") == "dr pepper can"
    assert name_of_folder("coca.cola bottle 2/IMG_0001") == "coca cola bottle"


def test_long_names_are_cut() -> None:
    assert len(clean_name("word " * 40)) <= 60


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Creative Commons Attribution 3.0 United States license  Copyright X", "CC-BY-3.0-US"),
        ("Creative Commons Attribution 3.0 Unported license", "CC-BY-3.0"),
        ("CC0", "CC0-1.0"),
        ("cc by 4.0", "CC-BY-4.0"),
        ("CC-BY-3.0-US", "CC-BY-3.0-US"),
        ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
        ("Creative Commons Attribution 4.0 International (CC BY 4.0) License", "CC-BY-4.0"),
        ("All rights reserved", "All rights reserved"),
        ("", ""),
    ],
)
def test_licences_have_their_spdx_name(text: str, name: str) -> None:
    assert spdx(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "CC0 for the mesh; textures CC-BY-NC 4.0",
        "CC-BY-4.0 AND CC-BY-NC-4.0",
        "CC-BY-NC-4.0",
        "Attribution 3.0 Unported, NoDerivatives",
        "Attribution 4.0 ShareAlike",
        "Attribution 3.0 Germany",
        "no CC0",
        "CC-BY-4.0 (c) Ann, textures by others",
        "CC-BY-4.0 Copyright Ann, non-commercial",
        "CC0 Copyright Ann. All rights reserved",
    ],
)
def test_licences_that_say_more_keep_their_words(text: str) -> None:
    assert spdx(text) == text


def test_public_domain_is_cc0_where_the_catalogue_is_named_so_alone(tmp_path: Path) -> None:
    for number, (name, licence, expected) in enumerate(
        [
            ("Blend Swap CC-0", "Public domain", "CC0-1.0"),
            ("Blend Swap CC-0", "Public domain, not for sale", "Public domain, not for sale"),
            ("CC-0 and CC-BY-NC", "Public domain", "Public domain"),
            ("Blend Swap", "Public domain", "Public domain"),
        ]
    ):
        text = f"name={name}\nlicense={licence}\nname#1=Bed\nmodel#1=/bed.obj\n"
        write_zip(tmp_path / f"{number}.sh3f", {"PluginFurnitureCatalog.properties": text.encode()})
        with open_files(Place.parse(str(tmp_path)), f"{number}.sh3f") as files:
            assert read_properties(files)["bed.obj"].licence == expected


def test_a_furniture_catalogue_is_latin_1(tmp_path: Path) -> None:
    data = PROPERTIES.encode("latin-1")
    write_zip(tmp_path / "f.sh3f", {"PluginFurnitureCatalog.properties": data})
    with open_files(Place.parse(str(tmp_path)), "f.sh3f") as files:
        found = read_properties(files)
    assert found["models/table/table.obj"] == Entry(
        name="table à thé",
        licence="CC0-1.0",
        attribution="Table à thé by José, Blend Swap CC-0, www.example.org",
        rotation=(1, 0, 0, 0, 0, 1, 0, -1, 0),
    )
    # Refused when the model is read: no matrix has one number.
    assert found["models/bed.obj"].rotation == (0.0,)


def test_a_csv_names_files(tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_text(
        "file,name,licence,attribution\nx\\y.obj,Red Barn,CC-BY-4.0,by Ann\nz.glb,,,\n"
    )
    assert read_catalogue(Place.parse(str(tmp_path))) == {
        "x/y.obj": Entry(name="red barn", licence="CC-BY-4.0", attribution="by Ann"),
        "z.glb": Entry(name=""),
    }


def test_a_csv_with_errors_is_named(tmp_path: Path) -> None:
    place = Place.parse(str(tmp_path))
    (tmp_path / "catalogue.csv").write_text("file,name\na.obj,A\n./a.obj,B\n")
    with pytest.raises(InputError, match=r"got 'a.obj' again in line 3 of .*catalogue.csv"):
        read_catalogue(place)
    (tmp_path / "catalogue.csv").write_text("name\nA\n")
    with pytest.raises(InputError, match="columns must include file") as caught:
        read_catalogue(place)
    assert str(tmp_path / "catalogue.csv") in str(caught.value)


def test_models_of_one_name_are_one_subject() -> None:
    first = ModelFile(container="a.zip", name="x/1.obj")
    second = ModelFile(container="", name="2.obj")
    assert subject_of(Entry(name="Café chair"), first) == subject_of(
        Entry(name="café CHAIR"), second
    )
    assert subject_of(Entry(name="bed"), first) == "bed"
    assert subject_of(Entry(name="captain's bed"), first) == "captain-s-bed"
    # Names in other scripts, and files without a name, stay apart.
    others = [Entry(name="ёлка"), Entry(name="椅子"), Entry(name="")]
    assert len({subject_of(entry, first) for entry in others}) == 3
    assert subject_of(Entry(name=""), first) != subject_of(Entry(name=""), second)
