"""Source `meshes`: textured models, seen alone and in places, with true alpha and true masks.

The journey of a pair: a model is loaded with its materials, photographed from one side in white
light on nothing, then from another side in the light of a place, and put there with its shadow.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.settings import require_choices, require_range
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.mesh_backgrounds import list_backgrounds
from dreambooth3d.pairs.mesh_catalogue import Entry, entry_of, read_catalogue, read_properties
from dreambooth3d.pairs.mesh_files import (
    ModelFile,
    foreign_models,
    list_models,
    open_files,
    require_models,
    require_safe_name,
)
from dreambooth3d.pairs.mesh_loader import MeshLimits, UpAxis, load_mesh
from dreambooth3d.pairs.mesh_model import Mesh
from dreambooth3d.pairs.mesh_pairs import PairRules, Sitter, make_pair, rejected
from dreambooth3d.pairs.mesh_renderer import renderer
from dreambooth3d.pairs.records import Chunk, Record
from dreambooth3d.pairs.sources.chunking import words
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.vision.refusal import RefusedError

_REVISION = 1


@dataclass(frozen=True, kw_only=True)
class MeshesSource:
    """GLB, glTF and OBJ models, also inside zips.

    Attributes:
        place: folder of the models; names and licences may stand in its `catalogue.csv`.
        backgrounds: folder of pictures to put objects in; None for the embedded scenery.
        size: side of the pictures, pixels.
        pairs_per_subject: pairs of every model.
        meshes_per_part: models that are one piece of work.
        seed: of cameras, places and light.
        up: axis of OBJ models that points up; glTF says y itself.
        min_object_share: of a picture's area that the object must cover.
        max_bytes: of any one file of a model.
        max_triangles: of one model, instances counted each.
    """

    place: Place
    backgrounds: Place | None = None
    size: int = 512
    pairs_per_subject: int = 4
    meshes_per_part: int = 16
    seed: int = 0
    up: UpAxis = "y"
    min_object_share: float = 0.01
    max_bytes: int = 256_000_000
    max_triangles: int = 2_000_000

    name = "meshes"
    needs_segmentation = False

    def __post_init__(self) -> None:
        require_choices(self)
        require_range(self, "pairs_per_subject", "meshes_per_part", least=1)
        require_range(self, "max_bytes", "max_triangles", least=1)
        require_range(self, "size", least=32, most=2048)
        require_range(self, "seed", least=0)
        require_range(self, "min_object_share", least=0.0, below=1.0)

    def fingerprint(self) -> str:
        """A hash of the settings and the files; where they lie makes no difference."""
        settings = asdict(self)
        del settings["place"], settings["backgrounds"]
        parents = [_contents(place) for place in (self.place, self.backgrounds) if place]
        return artifact_key(self.name, _REVISION, settings, parents)

    def chunks(self) -> Sequence[Chunk]:
        """Divide the models, in the order of their names.

        Raises:
            InputError: no model, a bad catalogue, or no background.
        """
        list_backgrounds(self.backgrounds)
        models = _described(self.place)
        step = self.meshes_per_part
        return [
            Chunk(
                index=index,
                payload={"models": list(models[start : start + step])},
                num_records=len(models[start : start + step]) * self.pairs_per_subject,
            )
            for index, start in enumerate(range(0, len(models), step))
        ]

    def remarks(self) -> Sequence[str]:
        """Tell of models that nobody has named."""
        models = _described(self.place)
        nameless = [printable(words(model["file"])) for model in models if not model["name"]]
        told = [f"models {len(models)}"]
        if foreign := foreign_models(self.place):
            told.append(
                f"models that are not read {len(foreign)}, such as {printable(foreign[0])}: "
                "export them as GLB or OBJ, or they are left out"
            )
        if nameless:
            told.append(
                f"models without a name {len(nameless)}, such as {nameless[0]}: name their files, "
                "or list them in catalogue.csv, or their pairs are left out"
            )
        return told

    def read(self, chunk: Chunk) -> Iterator[Record]:
        """Render the pairs of a chunk's models.

        All pairs of a model that cannot be used are rejected, so that it weighs as much as a
        model that can.

        Raises:
            ConfigError: this machine cannot render.
        """
        studio = renderer()
        rules = PairRules(
            size=self.size,
            seed=self.seed,
            min_object_share=self.min_object_share,
            pairs_per_subject=self.pairs_per_subject,
            backgrounds=list_backgrounds(self.backgrounds),
        )
        for model, entry in _models(chunk.payload["models"]):
            try:
                mesh = self._load(model, entry)
            except RefusedError as refused:
                yield from (
                    rejected(model, entry, i, refused) for i in range(self.pairs_per_subject)
                )
                continue
            with studio.stage(mesh) as stage:
                sitter = Sitter(model=model, entry=entry, mesh=mesh, stage=stage)
                for index in range(self.pairs_per_subject):
                    yield make_pair(sitter, index, rules)

    def _load(self, model: ModelFile, entry: Entry) -> Mesh:
        with open_files(self.place, model.container) as files:
            require_safe_name(model.name)
            limits = MeshLimits(max_bytes=self.max_bytes, max_triangles=self.max_triangles)
            return load_mesh(files, model.name, up=self.up, rotation=entry.rotation, limits=limits)


def _contents(place: Place) -> str:
    return place.fingerprint(place.list())


def _described(place: Place) -> list[dict[str, JsonValue]]:
    """List the models of a place with what is known of each, as plain JSON."""
    catalogue = read_catalogue(place)
    found = list_models(place)
    known = {model.origin for model in found}
    # A row without its file is a model that is not there: refused, and counted.
    lost = [ModelFile(container="", name=name) for name in sorted(catalogue) if name not in known]
    models = [*found, *lost]
    require_models(models, place)
    properties: dict[str, Mapping[str, Entry]] = {"": {}}
    rows: list[dict[str, JsonValue]] = []
    for model in models:
        if model.container not in properties:
            properties[model.container] = _properties(place, model.container)
        entry = entry_of(model, catalogue, properties[model.container])
        rows.append(
            {
                "container": model.container,
                "file": model.name,
                "name": entry.name,
                "licence": entry.licence,
                "attribution": entry.attribution,
                "rotation": list(entry.rotation),
            }
        )
    return rows


def _properties(place: Place, container: str) -> Mapping[str, Entry]:
    try:
        with open_files(place, container) as files:
            return read_properties(files)
    except RefusedError:
        # The container, or its catalogue, is damaged; its models say so when they are read.
        return {}


def _models(rows: JsonValue) -> Iterator[tuple[ModelFile, Entry]]:
    """Read a chunk's payload back."""
    if not isinstance(rows, list):
        raise ArtifactError(
            f"payload of a chunk of meshes must hold a list of models, got {rows!r}; "
            "take chunks from the source that reads them"
        )
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row["rotation"], list):
            raise ArtifactError(
                f"model in a chunk must be an object, got {row!r}; "
                "take chunks from the source that reads them"
            )
        model = ModelFile(container=words(row["container"]), name=words(row["file"]))
        numbers = [value for value in row["rotation"] if isinstance(value, int | float)]
        entry = Entry(
            name=words(row["name"]),
            licence=words(row["licence"]),
            attribution=words(row["attribution"]),
            rotation=tuple(map(float, numbers)),
        )
        yield model, entry
