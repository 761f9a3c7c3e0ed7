"""Figures of a table against a truth: `scores` are the headline figures and those of each label."""

from tagllm_cli.evaluation.metrics.scores import Evaluation, LabelScores, evaluate, evaluate_rows

__all__ = ["Evaluation", "LabelScores", "evaluate", "evaluate_rows"]
