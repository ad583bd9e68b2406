"""A report of a run in one HTML file: the candidates, what was dropped and why, and what was kept."""
