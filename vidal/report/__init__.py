"""A report of a run in one HTML file: the candidates, what was dropped and why, and what was kept."""

from vidal.report.page import write_report

__all__ = ["write_report"]
