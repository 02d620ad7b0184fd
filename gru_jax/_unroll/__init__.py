"""The recurrence through time: `unroll` checks its arguments and hands them to a backend, `scan` or `fused`."""
