"""A catalogue of 100 rows of which 30 are broken, each in another way."""

import csv
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

from PIL import Image

NUM_ROWS, NUM_BROKEN = 100, 30
_COLUMNS = ("subject", "class_noun", "images", "references", "trigger", "prompts", "steps", "seed",
            "priority")  # fmt: skip
_SIDE = 32

Cells = dict[str, str]
Damage = Callable[[Path, Cells], Cells]


def write_bad_catalogue(home: Path, seed: int) -> tuple[Path, set[int]]:
    """Write the pictures and the table; its path, and the numbers of the rows that are broken."""
    rng = Random(f"{seed} catalogue")
    # The first row is good, so that another one can repeat its name.
    broken = sorted(rng.sample(range(2, NUM_ROWS + 1), NUM_BROKEN))
    damages = dict(zip(broken, rng.sample(_DAMAGES, NUM_BROKEN), strict=True))
    with (home / "catalogue.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for number in range(1, NUM_ROWS + 1):
            folder = home / f"photos{number:03d}"
            _photograph(folder, rng)
            row = {"subject": f"thing{number:03d}", "class_noun": "thing", "images": folder.name}
            if number in damages:
                row |= damages[number](folder, row)
            extra = [row["extra"]] if "extra" in row else []
            writer.writerow([*(row.get(name, "") for name in _COLUMNS), *extra])
    return home / "catalogue.csv", set(broken)


def _photograph(folder: Path, rng: Random) -> None:
    folder.mkdir()
    colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    picture.paste(colour, (8, 8, 24, 24))
    picture.save(folder / "1.png")


def _cell(name: str, text: str) -> Damage:
    return lambda folder, row: {name: text}


def _bytes(change: Callable[[bytes], bytes], name: str = "1.png") -> Damage:
    def damage(folder: Path, row: Cells) -> Cells:
        whole = (folder / "1.png").read_bytes()
        (folder / name).write_bytes(change(whole))
        return {}

    return damage


def _empty(folder: Path, row: Cells) -> Cells:
    (folder / "1.png").unlink()
    return {}


def _texts_only(folder: Path, row: Cells) -> Cells:
    (folder / "1.png").rename(folder / "1.txt")
    return {}


def _references(content: bytes | None) -> Damage:
    def damage(folder: Path, row: Cells) -> Cells:
        home = folder.with_name(f"{folder.name}-references")
        home.mkdir()
        if content is not None:
            (home / "1.png").write_bytes(content)
        return {"references": home.name}

    return damage


def _gigapixel(whole: bytes) -> bytes:
    header = bytearray(whole[:33])
    header[16:24] = (50_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    return bytes(header) + whole[33:]


_DAMAGES: tuple[Damage, ...] = (
    _cell("subject", ""),
    _cell("subject", "../up"),
    _cell("subject", "a/b"),
    _cell("subject", ".hidden"),
    _cell("subject", "two words"),
    _cell("subject", "x" * 65),
    _cell("subject", "thing001"),
    _cell("class_noun", ""),
    _cell("class_noun", "[thing]"),
    _cell("class_noun", "thing|cup"),
    _cell("images", ""),
    _cell("images", "nowhere"),
    _cell("images", "nowhere/*.png"),
    _cell("images", "catalogue.csv"),
    _empty,
    _texts_only,
    _bytes(lambda whole: whole[: len(whole) // 2]),
    _bytes(lambda whole: b""),
    _bytes(lambda whole: b"<svg/>"),
    _bytes(lambda whole: b"hello", "2.jpg"),
    _bytes(_gigapixel),
    _cell("references", "nowhere"),
    _references(None),
    _references(b"no picture"),
    _cell("trigger", "[sks]"),
    _cell("prompts", "a [sks thing on a table"),
    _cell("prompts", "a [sks lamp] on a table"),
    _cell("prompts", "a [sks thing] and a [sks thing]"),
    _cell("steps", "many"),
    _cell("steps", "0"),
    _cell("steps", "1.5"),
    _cell("seed", "-1"),
    _cell("seed", "first"),
    _cell("priority", "high"),
    _cell("extra", "one cell too many"),
)
