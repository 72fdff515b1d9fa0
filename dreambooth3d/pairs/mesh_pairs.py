"""One pair of a model: cameras, light and place drawn by its name, two pictures, their gates."""

import hashlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.place import Place
from dreambooth3d.pairs.mesh_backgrounds import Background, compose, draw_background
from dreambooth3d.pairs.mesh_camera import Shot, seen_size
from dreambooth3d.pairs.mesh_catalogue import Entry, subject_of
from dreambooth3d.pairs.mesh_files import ModelFile
from dreambooth3d.pairs.mesh_geometry import Floats
from dreambooth3d.pairs.mesh_light import cut_out, encode, light_of, mask_of, studio_light
from dreambooth3d.pairs.mesh_model import Mesh
from dreambooth3d.pairs.mesh_renderer import Stage
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.pairs.sources.wording import whole_words
from dreambooth3d.vision.refusal import Reason, RefusedError

# Spread of the colours of an object, and its brightest ones, in 8-bit steps: below, it is a blot.
_MIN_SPREAD, _MIN_BRIGHTEST = 4.0, 24.0
# The other side is seen from this far away at least, and mostly not from right behind.
_TURN_DEG = (20.0, 150.0)
_MARGIN = 0.04


@dataclass(frozen=True, kw_only=True)
class PairRules:
    """Settings of the source that shape a pair, and the user's backgrounds."""

    size: int
    seed: int
    min_object_share: float
    pairs_per_subject: int
    backgrounds: Sequence[Place]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sitter:
    """A loaded model with what is known of it, ready to be photographed."""

    model: ModelFile
    entry: Entry
    mesh: Mesh
    stage: Stage


def make_pair(sitter: Sitter, index: int, rules: PairRules) -> Record:
    """Make pair `index` of a model; a function of the seed, the model's name and `index`."""
    rng = _generator(rules.seed, sitter.model, index)
    turn = float(_generator(rules.seed, sitter.model, -1).uniform(0.0, 360.0))
    # References of one model look at it from all sides, evenly.
    azimuth = turn + (index + float(rng.uniform(-0.3, 0.3))) * 360.0 / rules.pairs_per_subject
    side = float(rng.uniform(*_TURN_DEG)) * (1.0 if rng.random() < 0.5 else -1.0)
    seen = Shot(
        azimuth_deg=azimuth % 360.0, elevation_deg=float(rng.uniform(5.0, 35.0)), size=rules.size
    )
    try:
        reference = sitter.stage.photograph(seen, studio_light(azimuth + 35.0))
        _require_object(reference, rules.min_object_share, "reference")
        background = draw_background(rng, rules.size, rules.backgrounds)
        placed = _placed(rng, sitter.mesh, (azimuth + side) % 360.0, rules.size)
        return _photographed(rng, sitter, index, rules, (seen, reference), (placed, background))
    except RefusedError as refused:
        return rejected(sitter.model, sitter.entry, index, refused)


def rejected(model: ModelFile, entry: Entry, index: int, refused: RefusedError) -> Rejected:
    """Tell that a model, or one pair of it, is left out."""
    return Rejected(
        key=_key(model, index),
        origin=printable(model.origin),
        reason=refused.reason,
        sentence=str(refused),
        picture=refused.picture if isinstance(refused, _BlotError) else None,
        subject=subject_of(entry, model),
    )


class _BlotError(RefusedError):
    """A render that shows too little; it is kept for people to look at."""

    def __init__(self, reason: Reason, sentence: str, render_HW4: Floats) -> None:
        super().__init__(reason, f"{sentence}; check the model's materials and its up axis")
        self.picture = cut_out(render_HW4)


def _photographed(
    rng: np.random.Generator,
    sitter: Sitter,
    index: int,
    rules: PairRules,
    reference: tuple[Shot, Floats],
    target: tuple[Shot, Background],
) -> RawPair:
    (seen, render), (placed, background) = reference, target
    lamp = placed.azimuth_deg + float(rng.uniform(20.0, 100.0)) * (1 if rng.random() < 0.5 else -1)
    light = light_of(
        background.light_HW3, azimuth_deg=lamp, elevation_deg=float(rng.uniform(45.0, 75.0))
    )
    there = sitter.stage.photograph(placed, light)
    _require_object(there, rules.min_object_share, "target")
    entry, model = sitter.entry, sitter.model
    subject = subject_of(entry, model)
    return RawPair(
        key=_key(model, index),
        reference=cut_out(render),
        target=compose(background, there, sitter.stage.shadows(placed, light)),
        subject=subject,
        origin=printable(model.origin),
        caption=caption_of(entry.name, background.phrase),
        class_noun=entry.name,
        reference_mask=mask_of(render),
        target_mask=mask_of(there),
        meta=_meta(seen, placed, background, sitter, mask_share=float(mask_of(there).mean())),
        licence=entry.licence,
        attribution=entry.attribution or whole_words(sitter.mesh.copyright),
        # The subject is a slug: of "café table" it leaves letters nobody would look for.
        aliases=(entry.name, posixpath.splitext(model.origin)[0]),
    )


def caption_of(name: str, phrase: str) -> str:
    """Say what is where; empty when nobody knows what it is."""
    if not name:
        return ""
    article = "an" if name[0].lower() in "aeiou" else "a"
    return " ".join(part for part in (f"a photo of {article} {name}", phrase) if part)


def _placed(rng: np.random.Generator, mesh: Mesh, azimuth_deg: float, size: int) -> Shot:
    """Draw where the object stands in a place: its foot on the floor, all of it in the picture."""
    elevation = float(rng.uniform(8.0, 28.0))
    extent = float(rng.uniform(0.4, 0.72))
    width, height = (extent * part for part in seen_size(mesh, azimuth_deg, elevation))
    foot = max(float(rng.uniform(0.72, 0.92)), height + _MARGIN)
    side = 0.5 * width + _MARGIN
    middle = float(np.clip(rng.normal(0.5, 0.1), side, 1.0 - side))
    return Shot(
        azimuth_deg=azimuth_deg,
        elevation_deg=elevation,
        size=size,
        extent=extent,
        center=(middle, foot - 0.5 * height),
    )


def _require_object(render_HW4: Floats, min_share: float, what: str) -> None:
    """Refuse renders in which there is little to see."""
    mask = mask_of(render_HW4)
    share = float(mask.mean())
    if not mask.any():
        sentence = f"{what} must show the object, got an empty picture"
        raise _BlotError("no_object", sentence, render_HW4)
    if share < min_share:
        sentence = f"object in the {what} must cover {min_share:.1%} of it, got {share:.1%}"
        raise _BlotError("object_too_small", sentence, render_HW4)
    seen_N4 = render_HW4[mask]
    colors_N3 = encode(seen_N4[:, :3] / seen_N4[:, 3:]).astype(np.float32)
    spread, brightest = float(colors_N3.std(axis=0).max()), float(np.percentile(colors_N3, 99))
    if spread < _MIN_SPREAD or brightest < _MIN_BRIGHTEST:
        sentence = (
            f"colours of the object in the {what} must spread by {_MIN_SPREAD:.0f} steps and "
            f"reach {_MIN_BRIGHTEST:.0f}, got {spread:.1f} and {brightest:.0f}"
        )
        raise _BlotError("flat_colours", sentence, render_HW4)


def _meta(
    seen: Shot, placed: Shot, background: Background, sitter: Sitter, *, mask_share: float
) -> dict[str, JsonValue]:
    return {
        "file": printable(sitter.model.origin),
        "subject_name": sitter.entry.name,
        "triangles": sitter.mesh.num_triangles,
        "renderer": sitter.stage.renderer_name,
        "background": background.name,
        "reference_azimuth_deg": round(seen.azimuth_deg, 3),
        "reference_elevation_deg": round(seen.elevation_deg, 3),
        "target_azimuth_deg": round(placed.azimuth_deg, 3),
        "target_elevation_deg": round(placed.elevation_deg, 3),
        "target_extent": round(placed.extent, 4),
        "target_center": [round(part, 4) for part in placed.center],
        "mask_share": round(mask_share, 4),
    }


def _key(model: ModelFile, index: int) -> str:
    """Name a pair by its model's name, so that more models change no other pair."""
    return f"{_digest(model.origin)[:16]}-{index:03d}"


def _generator(seed: int, model: ModelFile, index: int) -> np.random.Generator:
    digest = _digest(f"{seed}/{index}/{model.origin}")
    return np.random.Generator(np.random.PCG64(int(digest[:16], 16)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
