"""The whole job of `tagllm run`: what a pipeline file says, both stages, gates and exports, and what the last run left.

    pipeline.yaml -> file.py -> options of the command -> run.py: both stages -> steps.py: gates, then exports
                                                             |                       ^
                                                             +---- report.py --------+  (labels.run.json: what is done)

A gate or an export is done again only where the label table, its own options or what it left has changed.
"""
