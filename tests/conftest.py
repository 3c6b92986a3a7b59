"""Shapes of `metarl.ops` and `metarl.nets` are checked at every call under test."""

from __future__ import annotations

import sys
from pathlib import Path

from jaxtyping import install_import_hook

install_import_hook(["metarl.ops", "metarl.nets"], "beartype.beartype")
sys.path.insert(0, str(Path(__file__).parent / "algorithms"))
