from dataclasses import replace
from pathlib import Path

import pytest

from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.backbone import EMBEDDED, load_prompts, load_tokenizer
from dreambooth3d.model.prompts import PromptEncoder, rare_words, words_in_span
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.triggers import num_alike, with_rare_triggers
from dreambooth3d.personalize.wording import training_prompts

MUG = Subject(
    id="one", class_noun="mug", images=(Path("a.png"),), references=(),
    prompts=("a video of a [sks mug] on a wooden desk",),
)  # fmt: skip


@pytest.fixture(scope="module")
def prompts() -> PromptEncoder:
    return load_prompts(EMBEDDED / "tiny")


@pytest.fixture(scope="module")
def words() -> tuple[str, ...]:
    return rare_words(load_tokenizer(EMBEDDED / "tiny"))


def test_every_subject_gets_a_rare_word_of_one_token_that_nothing_else_holds(
    prompts: PromptEncoder, words: tuple[str, ...]
) -> None:
    subjects = [replace(MUG, id=f"s{n}") for n in range(4)]
    found = [subject.trigger for subject in with_rare_triggers(subjects, words)]
    assert len(set(found)) == 4
    for word in found:
        assert not any(word in used for used in ("mug", "video", "wooden", "desk"))
        states = prompts(f"a video of a [{word} mug]")
        assert states.span is not None
        assert states.span[1] - states.span[0] == 2


def test_a_written_trigger_stays_and_is_nobody_elses(words: tuple[str, ...]) -> None:
    own = replace(MUG, id="own", trigger=words[0])
    subjects = [own, *(replace(MUG, id=f"s{n}") for n in range(len(words) // 2))]
    found = [subject.trigger for subject in with_rare_triggers(subjects, words)]
    assert found[0] == words[0]
    assert words[0] not in found[1:]


def test_a_catalogue_that_grows_keeps_its_words(words: tuple[str, ...]) -> None:
    few = [replace(MUG, id=f"s{n}") for n in range(4)]
    # Its letters take words out of the free ones.
    many = [*few, replace(MUG, id="a", class_noun="backpack", prompts=()), replace(MUG, id="z")]
    before, after = (with_rare_triggers(subjects, words) for subjects in (few, many))
    assert sum(a.trigger != b.trigger for a, b in zip(before, after[:4], strict=True)) <= 1


def test_too_small_a_tokenizer_is_said(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="triggers must be 2000 rare words"):
        with_rare_triggers([replace(MUG, id=f"s{n}") for n in range(2000)], words)


def test_subjects_that_prompts_cannot_tell_apart_are_counted() -> None:
    assert num_alike([MUG, replace(MUG, id="two"), replace(MUG, id="three", trigger="zwx")]) == 2


@pytest.mark.parametrize(
    ("prompt", "words"),
    [("a video of a [sks mug]", "sks mug"), ("[zwx rubber duck], from above", "zwx rubber duck"),
     ("it is a [sks mug]'s handle", "sks mug"), ("no brackets", "")],
)  # fmt: skip
def test_brackets_mark_the_tokens_of_their_words(
    prompts: PromptEncoder, prompt: str, words: str
) -> None:
    assert words_in_span(prompts.tokenizer, prompt) == words


def test_templates_are_filled_in_with_whatever_letters(prompts: PromptEncoder) -> None:
    config = PersonalizeConfig(prompt="a [{trigger} {class_noun}]|one [{trigger} {class_noun}].")
    subject = replace(MUG, class_noun="cafe\u0301 кружка", prompts=())
    assert training_prompts(config, subject, prompts.tokenizer) == (
        "a [sks cafe\u0301 кружка]", "one [sks cafe\u0301 кружка].",
    )  # fmt: skip
    glued = PersonalizeConfig(prompt="a[{trigger} {class_noun}]")
    with pytest.raises(ConfigError, match="put spaces or punctuation around"):
        training_prompts(glued, MUG, prompts.tokenizer)
