"""Rendered scenes with exact depth and a written thermal rule: what the two small shipped networks learn from."""
