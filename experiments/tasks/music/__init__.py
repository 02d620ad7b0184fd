"""Polyphonic music."""

TASKS = {"music": "task:Music"}
