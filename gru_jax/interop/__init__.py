"""Weights from other libraries and to them.

`from_*` gives `(cell, params)`; `to_*` takes them.
"""
