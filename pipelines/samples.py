"""Around a batch: the 3Dapter it starts from, the clips its table asks for."""

from collections.abc import Sequence
from pathlib import Path

from dreambooth3d.artifacts.key import latest
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.generate import job as generate
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.job import Outcome


def newest_adapter(config: PersonalizeConfig, out: Path) -> Path | None:
    """Find the newest 3Dapter below OUT; None where the method uses none."""
    if config.method == "3dreambooth":
        return None
    made_by = "python pipelines/pretrain.py"
    return latest(out / "pretrain", what="3Dapter", made_by=made_by)


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
