"""Filters, each of which rejects clips for one reason; the reason is also the filter's name and file name.

A filter decides on values that earlier stages have stored. A missing value (or NaN) is no reason to reject, as the
metadata of a crawl is often incomplete, and a recipe can list the same filter again after the stage that measures the
value. Audio criteria do not apply to clips without audio.
"""
