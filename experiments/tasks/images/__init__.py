"""Handwritten digits, one pixel or one row of pixels at a time."""

TASKS = {"digits": "digits:Digits", "mnist": "mnist:MNIST"}
