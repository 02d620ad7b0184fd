"""Machine translation."""

TASKS = {"multi30k": "multi30k:Multi30k"}
