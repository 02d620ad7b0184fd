"""Generated sequences that test long memory."""

TASKS = {"adding": "adding:Adding", "copying": "copying:Copying", "event_xor": "event_xor:EventXor"}
