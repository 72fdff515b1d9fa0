"""The prompts a subject is trained with: templates filled in, and the tokens they mark checked."""

import unicodedata
from typing import Any

from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.prompts import words_in_span
from dreambooth3d.personalize.config import PersonalizeConfig


def training_prompts(
    config: PersonalizeConfig, subject: Subject, tokenizer: Any
) -> tuple[str, ...]:
    """Fill the templates in, and see that the marked tokens are those that name the subject.

    Args:
        config: holds the templates.
        subject: trigger and class noun.
        tokenizer: of the backbone's text encoder.

    Raises:
        ConfigError: the tokens of a bracket are not its words.
    """
    # Tokenizers compose letters and accents.
    name = unicodedata.normalize("NFC", f"{subject.trigger} {subject.class_noun}")
    found = []
    for template in config.prompt.split("|"):
        prompt = template.strip().format(trigger=subject.trigger, class_noun=subject.class_noun)
        words = unicodedata.normalize("NFC", words_in_span(tokenizer, prompt))
        if words != name:
            raise ConfigError(
                f"the tokens marked in {prompt!r} must be those of {name!r}, got {words!r}; "
                "put spaces or punctuation around the brackets, or make the prompt shorter"
            )
        found.append(prompt)
    return tuple(found)
