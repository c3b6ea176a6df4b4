"""What the options of a command have in common."""

from argparse import Namespace

from rlrt.errors import UserError


def require_at_least(options: Namespace, **least: float) -> None:
    """UserError naming the first option below its ``least``; one that was not given may be None."""
    for name, lowest in least.items():
        value = getattr(options, name)
        if value is not None and not value >= lowest:  # also where it is NaN
            raise UserError(f"--{name.replace('_', '-')} is {value}, it must be at least {lowest}")
