"""The two ways in which a run ends early with one sentence instead of a traceback."""


class UserError(Exception):
    """A setting or a file is wrong; known before anything slow begins wherever that can be."""


class RunStoppedError(Exception):
    """A run cannot go on; what it has written so far is whole and can be resumed."""
