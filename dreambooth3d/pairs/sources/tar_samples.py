"""Group the members of a tar into samples, as WebDataset does: by the name up to the first dot."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.pairs.sources.tar_members import CutShortError, TarMember, TarWalk
from dreambooth3d.vision.refusal import RefusedError

_MOST_MEMBER_BYTES = 200_000_000
_NAME_FORM = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)


@dataclass(kw_only=True)
class TarSample:
    """What lies under one key in a tar.

    Attributes:
        ordinal: place among the tar's samples, from 0.
        key: as written in the tar; not safe as a name.
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


def walk_samples(
    walk: TarWalk, wanted: frozenset[str], *, needs: Callable[[int], bool]
) -> Iterator[TarSample]:
    """Yield every sample; one that is not needed comes without bytes.

    A tar that is damaged ends in a sample that is only a problem. The samples before stay, and what
    stood last stays if it is as complete as its predecessor and nothing was wrong but the end.

    Args:
        walk: at the start of a tar.
        wanted: extensions to read.
        needs: whether the sample with this ordinal will be used.
    """
    seen: set[str] = set()
    sample: TarSample | None = None
    shape: list[str] = []
    ordinal = 0
    try:
        for member in walk:
            key, extension = split_name(member.name)
            if sample is None or key != sample.key:
                if sample is not None:
                    shape = sorted(sample.extensions)
                    yield sample
                    ordinal += 1
                sample = TarSample(ordinal=ordinal, key=key)
                if key in seen:
                    sample.refuse(f"samples must have different keys, got {printable(key)} again")
                seen.add(key)
            _take(sample, member, extension, walk, wanted if needs(ordinal) else frozenset())
    except RefusedError as error:
        is_only_cut = isinstance(error, CutShortError)
        if sample is not None and is_only_cut and sorted(sample.extensions) == shape:
            yield sample
            ordinal += 1
        yield TarSample(ordinal=ordinal, key="", problem=error)
        return
    if sample is not None:
        yield sample


def split_name(name: str) -> tuple[str, str]:
    """Return key and extension; a name without an extension is all key."""
    bare = name
    while bare.startswith("./"):
        bare = bare[2:]
    form = _NAME_FORM.fullmatch(bare)
    return (form[1], form[2].lower()) if form else (bare, "")


def _take(
    sample: TarSample, member: TarMember, extension: str, walk: TarWalk, wanted: frozenset[str]
) -> None:
    """Put a member into its sample, or the reason why the sample cannot be used."""
    name = printable(member.name)
    if member.oddity:
        sample.refuse(f"member must be a file, got {member.oddity} named {name}")
    elif not extension or not {"", ".", ".."}.isdisjoint(sample.key.split("/")):
        sample.refuse(f"member must be named key.extension within the archive, got {name}")
    elif extension in sample.extensions:
        sample.refuse(f"members must have different names, got {name} twice")
    elif member.size > _MOST_MEMBER_BYTES:
        sample.refuse(f"member must have at most {_MOST_MEMBER_BYTES} bytes, got {member.size}")
    elif extension in wanted:
        sample.members[extension] = walk.read()
    sample.extensions.append(extension)
