"""Corrupts small clips of every codec and container, builds a dataset of them, and tells what became of each."""
