"""Errors that the user can mend.

Each message is one line that begins with where the fault lies (the dotted path of a setting, or the file and line
of the data), then says what was wrong, what was got, and what to do. The command line prints it and exits with 2.
"""


class UserError(Exception):
    """Something that the user can mend; never raised for our own mistakes."""


class SettingError(UserError, ValueError):
    """A setting has a wrong name, type or value, or contradicts another one."""


class DataError(UserError, ValueError):
    """A data file cannot be read or does not hold what the task needs."""


class CheckpointError(UserError, ValueError):
    """A model folder, weight file, tokenizer or adapter is missing, damaged, or contradicts itself."""


class StorageError(UserError, OSError):
    """A file or folder cannot be written: no permission, no space, already there, in use."""
