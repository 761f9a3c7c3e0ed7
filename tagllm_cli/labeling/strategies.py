"""How candidates are asked for. Imports nothing: the command line lists the strategies."""

from __future__ import annotations

DEFAULT_STRATEGY = "groups"

# Strategy -> the template of its request. The last three are the baselines of the first.
STRATEGIES = {"groups": "group", "open": "open", "all": "all", "binary": "verify"}
