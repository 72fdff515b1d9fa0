"""Group the members of a tar into samples, as WebDataset does: by the name up to the first dot."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.pairs.sources.tar_members import TarDamage, TarMember, TarWalk
from dreambooth3d.vision.refusal import RefusedError

MOST_MEMBER_BYTES = 200_000_000
_NAME_FORM = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)

Needs = Callable[[int], bool]


@dataclass(kw_only=True)
class TarSample:
    """What lies under one key in a tar, or damage that belongs to no sample.

    Attributes:
        ordinal: place among the tar's samples, from 0.
        key: as written in the tar; not safe as a name; empty for damage.
        members: bytes by extension, of those that were asked for.
        extensions: of all members, in order.
        problem: why the sample cannot be used; None when it can.
    """

    ordinal: int
    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    extensions: list[str] = field(default_factory=list)
    problem: RefusedError | None = None

    def refuse(self, sentence: str) -> None:
        """Keep the first problem."""
        self.problem = self.problem or RefusedError("bad_member", sentence)


class SampleWalk:
    """Iterate over the samples of a tar; one that is not needed comes without bytes.

    Damage may have taken members of the samples on both sides. One of them stays if it has all
    that is asked for, or as much as the last sample that no damage touched; else it is refused,
    and its problem is the damage. Damage that spoils no sample is a record by itself.
    """

    def __init__(
        self,
        walk: TarWalk,
        parts: Sequence[frozenset[str]],
        *,
        needs: Needs,
        first: int = 0,
        taken: Iterable[str] = (),
    ) -> None:
        """Begin where the walk is.

        Args:
            walk: at the first member of a sample.
            parts: extensions of everything a sample should have; one of each is enough.
            needs: whether the sample with this ordinal will be used.
            first: ordinal of the first sample.
            taken: keys that lie elsewhere in the tar.
        """
        self._walk = walk
        self._parts = parts
        self._wanted = frozenset[str]().union(*parts)
        self._needs = needs
        self._ordinal = first
        self._seen = set(taken)
        self._usual: frozenset[int] | None = None
        self._untold: list[TarDamage] = []

    def __iter__(self) -> Iterator[TarSample]:
        now: _Neighbourhood | None = None
        near = _Near()
        for item in self._walk:
            if isinstance(item, TarDamage):
                near = self._note(item, now, near)
                continue
            key, extension = split_name(item.name)
            if now is None or key != now.sample.key:
                if now is not None:
                    near = self._judge(now)
                    yield now.sample
                    yield from self._tell(near.damage)
                now = _Neighbourhood(sample=self._open(key), near=near)
            elif now.after is not None:
                # The damage is within the sample, whatever else is found of it.
                self._blame(now)
                now.near, now.after = _Near(damage=now.after), None
            self._take(now.sample, item, extension)
        if now is not None:
            self._judge(now)
            yield now.sample
        yield from self._tell(None)

    def _note(self, damage: TarDamage, now: "_Neighbourhood | None", near: "_Near") -> "_Near":
        """Remember the first damage of a stretch."""
        if now is None and near.damage is None:
            self._untold.append(damage)
            return _Near(damage=damage)
        if now is not None and now.after is None:
            self._untold.append(damage)
            now.after = damage
        return near

    def _judge(self, now: "_Neighbourhood") -> "_Near":
        """Refuse a sample that damage may have spoiled; return what the next one is judged by."""
        sample, damage = now.sample, now.near.damage
        found = frozenset(
            place for place, part in enumerate(self._parts) if part & set(sample.extensions)
        )
        if damage is None and now.after is None:
            self._usual = found if sample.problem is None else self._usual
            return _Near()
        if sample.problem is None and len(found) < len(self._parts) and found != self._usual:
            self._blame(now)
        if now.after is not None:
            return _Near(damage=now.after)
        # Behind a damaged extended header a member has a wrong name, and is a sample by itself.
        is_near = sample.problem is None or now.near.is_carried
        return _Near() if is_near else _Near(damage=damage, is_carried=True)

    def _blame(self, now: "_Neighbourhood") -> None:
        """Tell of the damage on both sides by refusing the sample."""
        around = [damage for damage in (now.near.damage, now.after) if damage is not None]
        now.sample.problem = now.sample.problem or around[0].problem
        self._untold = [damage for damage in self._untold if damage not in around]

    def _tell(self, kept: TarDamage | None) -> Iterator[TarSample]:
        """Yield damage that no sample tells of, but for what the next one is judged by."""
        for damage in self._untold:
            if damage is not kept:
                yield TarSample(ordinal=self._ordinal, key="", problem=damage.problem)
                self._ordinal += 1
        self._untold = [damage for damage in self._untold if damage is kept]

    def _open(self, key: str) -> TarSample:
        sample = TarSample(ordinal=self._ordinal, key=key)
        self._ordinal += 1
        if key in self._seen:
            sample.refuse(f"samples must have different keys, got {printable(key)} again")
        self._seen.add(key)
        return sample

    def _take(self, sample: TarSample, member: TarMember, extension: str) -> None:
        """Put a member into its sample, or the reason why the sample cannot be used."""
        name = printable(member.name)
        if member.oddity:
            sample.refuse(f"member must be a file, got {member.oddity} named {name}")
        elif not extension or not {"", ".", ".."}.isdisjoint(sample.key.split("/")):
            sample.refuse(f"member must be named key.extension within the archive, got {name}")
        elif extension in sample.extensions:
            sample.refuse(f"members must have different names, got {name} twice")
        elif member.size > MOST_MEMBER_BYTES:
            sample.refuse(f"member must have at most {MOST_MEMBER_BYTES} bytes, got {member.size}")
        elif extension in self._wanted and sample.problem is None and self._needs(sample.ordinal):
            self._read(sample, extension)
        sample.extensions.append(extension)

    def _read(self, sample: TarSample, extension: str) -> None:
        try:
            sample.members[extension] = self._walk.read()
        except RefusedError as error:
            sample.problem = error


def split_name(name: str) -> tuple[str, str]:
    """Return key and extension; a name without an extension is all key."""
    bare = name
    while bare.startswith("./"):
        bare = bare[2:]
    form = _NAME_FORM.fullmatch(bare)
    return (form[1], form[2].lower()) if form else (bare, "")


@dataclass(frozen=True, kw_only=True)
class _Near:
    """Damage before a sample, if any, and whether a refused sample lies between them."""

    damage: TarDamage | None = None
    is_carried: bool = False


@dataclass(kw_only=True)
class _Neighbourhood:
    """A sample at work, and the damage on both sides of it."""

    sample: TarSample
    near: _Near
    after: TarDamage | None = None
