"""Ablations: trainings that are alike but for one choice, and what the choice is worth on the same held-out clips."""
