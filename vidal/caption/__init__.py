"""Texts without models: views of a clip, the prompt, the guard and the merge."""
