"""Around a batch: the 3Dapter it starts from, the clips its table asks for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dreambooth3d.artifacts.adapter import find_adapter
from dreambooth3d.artifacts.key import latest
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import InputError
from dreambooth3d.generate import job as generate
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.outcome import Outcome


def choose_pretrained(config: PersonalizeConfig, out: Path, given: str | None) -> Path | None:
    """Find the 3Dapter that is named, or the newest below OUT; None where the method uses none."""
    if given is not None:
        return find_adapter(given)
    if config.method == "3dreambooth":
        return None
    made_by = "python pipelines/pretrain.py` or name the packaged one with `--adapter tiny"
    return latest(out / "pretrain", what="3Dapter", made_by=made_by)


def adapters_by_subject(out: Path) -> dict[str, Path]:
    """Find every subject's adapter below OUT; of several the one in the newest batch.

    Raises:
        ArtifactError: there is no batch yet.
    """
    root = out / "personalize"
    made_by = "python pipelines/personalize_batch.py subjects.csv"
    newest = latest(root, what="subject adapters", made_by=made_by)
    older = [p.parent for p in root.glob("*/adapters") if p.parent != newest]
    batches = [newest, *sorted(older, key=lambda p: p.stat().st_mtime, reverse=True)]
    found: dict[str, Path] = {}
    for batch in batches:
        for folder in sorted((batch / "adapters").iterdir()):
            found.setdefault(folder.name, folder)
    return found


def adapters_in(folder: Path) -> dict[str, Path]:
    """Find the adapters of a folder by their names.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"--adapters must be a folder, got nothing at {folder}; check the path")
    return {found.name: found for found in sorted(folder.iterdir()) if found.is_dir()}


def adapter_of(subject: str, out: Path) -> Path:
    """Find one subject's adapter.

    Raises:
        InputError: there is none; names those that there are.
    """
    found = adapters_by_subject(out)
    if subject not in found:
        raise InputError(
            f"subject must be one of {', '.join(sorted(found))}, got {subject!r}; correct the name "
            "or personalize it first"
        )
    return found[subject]


def make_samples(
    config: GenerateConfig,
    subjects: Sequence[Subject],
    outcomes: Sequence[Outcome],
    out: Path,
) -> list[Path]:
    """Make the clips that the table's `prompts` column asks for, into OUT/clips."""
    ready = {outcome.subject for outcome in outcomes if not outcome.is_failed}
    wanted = [(s.id, prompt) for s in subjects if s.id in ready for prompt in s.prompts]
    if not wanted:
        return []
    batch = latest(out / "personalize", what="subject adapters", made_by="this command")
    orders = [(batch / "adapters" / subject, prompt) for subject, prompt in wanted]
    return generate.run(config, orders, out / "clips")


def benchmark_orders(
    subjects: Mapping[str, Subject], adapters: Mapping[str, Path]
) -> list[generate.Order]:
    """A clip for every prompt of every subject that has an adapter.

    Raises:
        InputError: no subject has an adapter, or one that has no prompt.
    """
    ready = {name: subject for name, subject in subjects.items() if name in adapters}
    if not ready:
        raise InputError(
            f"adapters must be of the benchmark's subjects ({', '.join(subjects)}), got "
            f"{', '.join(adapters) or 'none'}; personalize the subjects first"
        )
    if silent := [name for name, subject in ready.items() if not subject.prompts]:
        raise InputError(
            f"subjects must say which clips to make, got no prompts for {', '.join(silent)}; "
            "write them into prompt.txt, one a line"
        )
    return [(adapters[name], prompt) for name, own in ready.items() for prompt in own.prompts]
