"""Our recurrence against every other library's: the same function on the same weights, timed side by side."""
