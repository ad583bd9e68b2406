"""Ablations: training runs that differ in one choice only, and the effect of the choice on the same held-out clips."""
