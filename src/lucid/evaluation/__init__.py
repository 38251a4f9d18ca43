"""Metrics, explanations and the report of an evaluation."""
