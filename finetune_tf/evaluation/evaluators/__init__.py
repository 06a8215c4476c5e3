"""Evaluators: the metrics of each kind of task."""
