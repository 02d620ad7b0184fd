"""Forecasts of time series."""

TASKS = {"forecasting": "task:Forecasting"}
