"""Analyses of runs and of evaluations. Their libraries are the project's extra ``analysis``."""

import sys
from importlib.util import find_spec

_MISSING = [name for name in ("matplotlib", "scipy", "sklearn") if find_spec(name) is None]
if _MISSING:  # here, where no script has imported anything that takes seconds
    print(
        f"error: an analysis needs {', '.join(_MISSING)}: install the project with its extra, "
        "as in pip install '.[analysis]'",
        file=sys.stderr,
    )
    raise SystemExit(2)
