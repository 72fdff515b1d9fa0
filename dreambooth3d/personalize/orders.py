"""An order: one subject to train, as JSON that travels between processes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.personalize.config import PersonalizeConfig


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker needs to train one subject.

    Attributes:
        config: resolved for the subject; local paths in it are absolute.
        subject: with absolute paths.
        pretrained: folder of the 3Dapter; None where the method uses none.
        key, parents: of the adapter.
        out: folder of adapters and checkpoints; every node must reach it.
        stop: a file: once it is there, the worker saves and ends.
    """

    config: PersonalizeConfig
    subject: Subject
    pretrained: Path | None
    key: str
    parents: tuple[str, ...]
    out: Path
    stop: Path

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `log` is where the worker's output goes."""
        subject = asdict(self.subject)
        subject["images"] = [str(path) for path in self.subject.images]
        subject["references"] = [str(path) for path in self.subject.references]
        return {
            "config": asdict(self.config),
            "subject": subject,
            "pretrained": None if self.pretrained is None else str(self.pretrained),
            "key": self.key,
            "parents": list(self.parents),
            "out": str(self.out),
            "stop": str(self.stop),
            "log": str(self.out / ".logs" / f"{self.key}.log"),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Order":
        """Read what `to_json` gave."""
        subject = {k: _tuple(v) for k, v in found["subject"].items()}
        for name in ("images", "references"):
            subject[name] = tuple(Path(path) for path in subject[name])
        pretrained = found["pretrained"]
        return cls(
            config=PersonalizeConfig(**{k: _tuple(v) for k, v in found["config"].items()}),
            subject=Subject(**subject),
            pretrained=None if pretrained is None else Path(pretrained),
            key=found["key"],
            parents=tuple(found["parents"]),
            out=Path(found["out"]),
            stop=Path(found["stop"]),
        )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
