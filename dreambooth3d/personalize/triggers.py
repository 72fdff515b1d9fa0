"""Words that stand for one object each: rare to the backbone, and apart from one another.

A trigger that is common, or part of another word of the catalogue, brings what the backbone already
knows of it into every clip (DreamBooth, arXiv 2208.12242, section 4.1).
"""

import re
from collections.abc import Sequence

from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.prompts import PromptEncoder


def choose_triggers(subjects: Sequence[Subject], prompts: PromptEncoder) -> dict[str, str]:
    """Choose a trigger of its own for every subject, by id, the rarest first.

    Each is one token of the backbone's tokenizer, and occurs in no class noun and no prompt.

    Raises:
        ConfigError: the tokenizer has fewer such words than there are subjects.
    """
    used = {
        word
        for subject in subjects
        for text in (subject.class_noun, *subject.prompts)
        for word in re.findall(r"[a-z]+", text.lower().replace(f"[{subject.trigger} ", "["))
    }
    free = [
        word for word in dict.fromkeys(prompts.rare_words()) if not any(word in u for u in used)
    ]
    if len(free) < len(subjects):
        raise ConfigError(
            f"triggers must be {len(subjects)} rare words, got {len(free)} in this tokenizer; "
            "write the column `trigger`"
        )
    return {subject.id: word for subject, word in zip(subjects, free, strict=False)}


def find_collisions(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """Name every pair of subjects that prompts cannot tell apart, a sentence each."""
    first: dict[tuple[str, str], str] = {}
    found = []
    for subject in subjects:
        name = (subject.trigger.lower(), subject.class_noun.lower())
        if name in first:
            found.append(
                f"trigger and class noun must be one subject's alone, got {' '.join(name)!r} for "
                f"{first[name]} and {subject.id}; give one of them another trigger"
            )
        first.setdefault(name, subject.id)
    return tuple(found)
