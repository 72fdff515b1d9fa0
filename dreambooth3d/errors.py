"""Every error this project raises on purpose.

Dreambooth3dError
├── ConfigError        a setting, flag or name has a value that is not allowed (a ValueError)
├── InputError         something the user gave (a row, a file, a folder) cannot be used
│   └── ImageError     an image file cannot be read or is not allowed
├── ArtifactError      a file between stages is missing, damaged or of another format
│   └── AdapterError   an adapter does not fit the backbone or the attention mode it is used with
└── RunError           a stage started and could not finish; says what is kept and how to go on
    └── StoppedError   it was asked to end, and saved what there was

The text of an error is one sentence: ``<what> must be <rule>, got <value>; <what to do>``.
"""


class Dreambooth3dError(Exception):
    """Base of all errors that are meant for the reader of the terminal."""


class ConfigError(Dreambooth3dError, ValueError):
    """A setting, flag or name has a value the rules do not allow."""


class InputError(Dreambooth3dError, ValueError):
    """Something the user gave (a row, a file, a folder) cannot be used."""


class ImageError(InputError):
    """An image file cannot be read or is not allowed."""


class ArtifactError(Dreambooth3dError):
    """A file between two stages is missing, damaged or of another format."""


class AdapterError(ArtifactError):
    """An adapter does not fit the backbone or the attention mode it is used with."""


class UnusableError(InputError):
    """So much of the input cannot be used that nothing is made of it."""


class RunError(Dreambooth3dError):
    """A stage started and could not finish."""


class StoppedError(RunError):
    """A stage was asked to end before it was done, and saved what there was."""
