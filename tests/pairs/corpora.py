"""Corpora and pictures for tests, made by the real chain without a cluster."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.pairs import PairCorpus, write_corpus, write_shard
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import BLANK_NAME
from dreambooth3d.pairs.blueprint import draw_blueprint
from dreambooth3d.pairs.chain import Chain
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.encoding import Encoder
from dreambooth3d.pairs.finish import finish_shard
from dreambooth3d.pairs.inventory import take_inventory
from dreambooth3d.pairs.parts import Part, make_part, read_part, read_record, write_part
from dreambooth3d.pairs.publishing import gather_results, publish_corpus
from dreambooth3d.pairs.sources.scenes import ScenesSource
from dreambooth3d.vision.segment import build_segmenter


def chain(**settings: Any) -> Chain:
    """The operators without weights."""
    return Chain(**({"size": 32, "segmenter": build_segmenter("plain")} | settings))


def scenes_part(samples: int = 6, **settings: Any) -> Part:
    source = ScenesSource(samples=samples, records_per_chunk=samples, size=32, **settings)
    return make_part(source, source.chunks()[0], chain(), label="scenes", name="scenes-000000.tar")


def write_scenes(folder: Path, samples: int = 6) -> PairCorpus:
    """A corpus of one shard of 32 x 32 pixels."""
    place = Place.parse(str(folder))
    entry = write_shard(place, scenes_part(samples).shard)
    write_corpus(place, [entry], key="corpus", config={})
    return PairCorpus.open(folder)


def object_photo(
    seed: int = 0, size: tuple[int, int] = (160, 120), *, box: float = 0.5, ground: str = "white"
) -> Image.Image:
    """A patterned box in the middle of a plain backdrop; `box` is its share of the height."""
    photo = Image.new("RGB", size, ground)
    side = round(box * size[1])
    cells = np.random.default_rng(seed).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    tile = Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST)
    photo.paste(tile, ((size[0] - side) // 2, (size[1] - side) // 2))
    return photo


def two_boxes(count: int = 6) -> Image.Image:
    """Several boxes far from each other: an object in pieces."""
    photo = Image.new("RGB", (320, 120), "white")
    pen = ImageDraw.Draw(photo)
    for place in range(count):
        pen.rectangle((10 + 50 * place, 40, 40 + 50 * place, 80), fill=(place * 40, 90, 200))
    return photo


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def build_here(config: PairsConfig, folder: Path | str) -> tuple[Path, Manifest]:
    """Make a corpus in this process, one part after the other."""
    blueprint, home = draw_blueprint(config), Place.parse(str(folder))
    for source in blueprint.sources:
        parts = home / blueprint.parts_of(source)
        for chunk in source.chunks:
            name = source.part_name(chunk.index)
            if read_part(parts, name) is None:
                made = make_part(
                    source.source, chunk, blueprint.chain, label=source.label, name=name
                )
                write_part(parts, made)
    inventory = take_inventory(home, blueprint, max_bad_fraction=config.max_bad_fraction)
    encoder = None if blueprint.encoding is None else Encoder(blueprint.encoding)
    first = 0
    for source in blueprint.sources:
        parts, shelf = home / blueprint.parts_of(source), home / blueprint.shelf_of(source)
        for shard in source.shards:
            records = {part: read_record(parts, source.part_name(part)) for part in shard.parts}
            gone = frozenset(
                record.samples[place].key
                for part, record in records.items()
                for place in inventory.duplicates_of(first + part)
            )
            found, rules = list(records.values()), blueprint.rules
            finish_shard(shard.name, parts, found, gone, rules, shelf, encode=encoder)
        first += len(source.chunks)
        if encoder is not None:
            (shelf / BLANK_NAME).write_bytes(encoder.blank())
    results = gather_results(home, blueprint, inventory)
    manifest = publish_corpus(home, blueprint, results)
    return Path(folder) / blueprint.key, manifest
