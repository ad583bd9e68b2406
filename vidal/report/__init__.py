"""One HTML file in which a person sees what a run took in, what it turned away and why, and what it kept."""

from vidal.report.page import write_report

__all__ = ["write_report"]
