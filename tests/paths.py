"""Where things lie that tests of every kind read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TINY = str(ROOT / "models" / "tiny")
GOLDEN = ROOT.parent / "shared" / "golden" / "vectors.json"
