"""Prompts: plain text in which one pair of brackets may mark the subject."""

import re
from dataclasses import dataclass

from dreambooth3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PromptParts:
    """A prompt cut at its brackets: ``before``, the words inside (None without), ``after``."""

    before: str
    span: str | None
    after: str

    @property
    def text(self) -> str:
        """The prompt without brackets."""
        return f"{self.before}{self.span or ''}{self.after}"


def check_text(field: str, value: str) -> None:
    """Raise an `InputError` unless every letter of `value` can be written down.

    A JSON file may hold half of a surrogate pair, which is no letter and which no tokenizer reads.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{field} must be text, got half a letter at place {error.start + 1} of {value!r}; "
            "write the file anew as UTF-8"
        ) from error


def parse_prompt(
    text: str, *, class_noun: str | None = None, trigger: str | None = None
) -> PromptParts:
    """Cut a prompt at its bracket pair.

    Args:
        text: At most one pair of brackets, as in "a [sks mug] on a desk".
        class_noun: When given, the brackets must hold one word and then this noun.
        trigger: May stand before the noun as well, if it has several words.

    Raises:
        InputError: Empty, unbalanced, nested, repeated or unknown brackets.
    """
    if not text.strip():
        raise InputError("prompt must not be empty, got no words; write what is to be seen")
    check_text("prompt", text)
    marks = "".join(letter for letter in text if letter in "[]")
    if marks == "":
        return PromptParts(before=text, span=None, after="")
    if marks != "[]":
        raise InputError(
            f"prompt must have at most one pair of brackets, got {marks!r} in {text!r}; "
            "mark the subject once, as in [sks mug]"
        )
    before, rest = text.split("[")
    span, after = rest.split("]")
    words = span.casefold().split()
    if class_noun is None:
        named = bool(words)
    else:
        noun = class_noun.casefold().split()
        triggers = (trigger or "").casefold().split()
        named = (len(words) > 1 and words[1:] == noun) or words == [*triggers, *noun] != noun
    if not named:
        raise InputError(
            "unknown prompt bracket: it must be "
            f"[{trigger or '<trigger>'} {class_noun or '<class_noun>'}], "
            f"got [{span}] in {text!r}; correct the words or drop the brackets"
        )
    return PromptParts(before=before, span=span, after=after)


def plain_text(text: str, *, class_noun: str, trigger: str) -> str:
    """Say a prompt as one would to whoever never heard of the subject.

    Brackets go, and the trigger with them: "a [sks mug] on a desk" and "a sks mug on a desk" are
    "a mug on a desk"; a trigger that stands alone is the noun. A bracket that ends with the noun is
    the noun, whatever word is in front. Text of any origin may be given.
    """
    noun = class_noun.strip()

    def opened(found: re.Match[str]) -> str:
        words, last = found[1].split(), noun.split()
        is_subject = [w.casefold() for w in words[-len(last) :]] == [w.casefold() for w in last]
        return " ".join(words[-len(last) :] if is_subject else words)

    bare = re.sub(r"[\[\]]", " ", re.sub(r"\[([^\[\]]*)\]", opened, text))
    words = rf"(?<!\w){_spaced(trigger)}(?:\s+({_spaced(noun)}\w*))?(?!\w)"
    named = re.sub(words, lambda found: found[1] or noun, bare, flags=re.IGNORECASE)
    return " ".join(named.split())


def _spaced(words: str) -> str:
    """A pattern of words with any space between them."""
    return r"\s+".join(map(re.escape, words.split()))
