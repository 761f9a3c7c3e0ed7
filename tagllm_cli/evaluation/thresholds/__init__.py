"""Thresholds of single labels from a small truth: `counts`, `fit` (shrinkage), `crossfit` (held-out), `summary`."""
