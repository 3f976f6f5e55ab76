"""Intervals, tests, power and verdicts on paired scores: numpy and scipy, never torch."""
