"""Words that stand for one object each: rare to the backbone, and apart from one another.

A trigger that is common, or part of another word of the catalogue, brings what the backbone already
knows of it into every clip (DreamBooth, arXiv 2208.12242, section 4.1).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dreambooth3d.artifacts.subject import DEFAULT_TRIGGER, Subject
from dreambooth3d.errors import ConfigError


def with_rare_triggers(subjects: Sequence[Subject], words: Sequence[str]) -> tuple[Subject, ...]:
    """Give every subject that came without a trigger one of its own.

    A subject's id leads to its word, so that a catalogue that grows keeps nearly all of them; none
    occurs in a class noun, a prompt or another trigger.

    Args:
        subjects: of one catalogue.
        words: one token each, see `model.prompts.rare_words`.

    Raises:
        ConfigError: there are fewer such words than subjects.
    """
    used = {word for subject in subjects for word in _words_of(subject)}
    free = [word for word in dict.fromkeys(words) if not any(word in other for other in used)]
    without = [subject.id for subject in subjects if subject.trigger == DEFAULT_TRIGGER]
    if len(free) < len(without):
        raise ConfigError(
            f"triggers must be {len(without)} rare words, got {len(free)} in this tokenizer; "
            "write the column `trigger`"
        )
    left, chosen = set(free), dict[str, str]()
    for name in sorted(without):
        chosen[name] = max(left, key=partial(_rank, name))
        left.remove(chosen[name])
    return tuple(
        replace(subject, trigger=chosen.get(subject.id, subject.trigger)) for subject in subjects
    )


def num_alike(subjects: Sequence[Subject]) -> int:
    """Count subjects whose trigger and class noun are those of another one too."""
    names = Counter((s.trigger.lower(), s.class_noun.lower()) for s in subjects)
    return sum(count for count in names.values() if count > 1)


def _rank(name: str, word: str) -> bytes:
    """Order of words by name (rendezvous hashing): other words come and go around the highest."""
    return hashlib.sha256(f"{name} {word}".encode()).digest()


def _words_of(subject: Subject) -> list[str]:
    own = "" if subject.trigger == DEFAULT_TRIGGER else subject.trigger
    told = (text.replace(f"[{subject.trigger} ", "[") for text in subject.prompts)
    return re.findall(r"[a-z]+", " ".join((subject.class_noun, own, *told)).lower())
