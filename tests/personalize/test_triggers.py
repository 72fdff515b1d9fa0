from dataclasses import replace
from pathlib import Path

import pytest

from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.backbone import EMBEDDED, load_prompts
from dreambooth3d.model.prompts import PromptEncoder
from dreambooth3d.personalize.triggers import choose_triggers, find_collisions

MUG = Subject(
    id="one", class_noun="mug", images=(Path("a.png"),), references=(),
    prompts=("a video of a [sks mug] on a wooden desk",),
)  # fmt: skip


@pytest.fixture(scope="module")
def prompts() -> PromptEncoder:
    return load_prompts(EMBEDDED / "tiny")


def test_every_subject_gets_a_rare_word_of_one_token_that_nothing_else_holds(
    prompts: PromptEncoder,
) -> None:
    subjects = [replace(MUG, id=f"s{n}") for n in range(4)]
    found = choose_triggers(subjects, prompts)
    assert len(set(found.values())) == 4
    for word in found.values():
        assert not any(word in used for used in ("mug", "video", "wooden", "desk"))
        states = prompts(f"a video of a [{word} mug]")
        assert states.span is not None
        assert states.span[1] - states.span[0] == 2


def test_too_small_a_tokenizer_is_said(prompts: PromptEncoder) -> None:
    with pytest.raises(ConfigError, match="triggers must be 2000 rare words"):
        choose_triggers([replace(MUG, id=f"s{n}") for n in range(2000)], prompts)


def test_subjects_that_prompts_cannot_tell_apart_are_named() -> None:
    twin, other = replace(MUG, id="two"), replace(MUG, id="three", trigger="zwx")
    (sentence,) = find_collisions([MUG, twin, other])
    assert "'sks mug' for one and two" in sentence


@pytest.mark.parametrize(
    ("prompt", "words"),
    [("a video of a [sks mug]", "sks mug"), ("[zwx rubber duck], from above", "zwx rubber duck"),
     ("it is a [sks mug]'s handle", "sks mug"), ("no brackets", "")],
)  # fmt: skip
def test_brackets_mark_the_tokens_of_their_words(
    prompts: PromptEncoder, prompt: str, words: str
) -> None:
    assert prompts.words_in_span(prompt) == words
