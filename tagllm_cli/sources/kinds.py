"""The kinds of sources. Imports nothing: the command line lists them."""

from __future__ import annotations

# In the order in which `registry.KINDS` opens them.
KIND_NAMES = ("folder", "tar", "parquet", "manifest")
