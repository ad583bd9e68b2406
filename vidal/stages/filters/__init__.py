"""Filters: each turns a clip away for one reason, which is its name, its file and the manifest's ``reason``.

A filter decides on numbers that earlier stages stored and stores none of its own. A number that is
missing (or not a number) is no ground to reject: the metadata of a crawl often lacks it, and the same
filter can stand again behind the stage that measures. A clip without a sound has no sound to judge.
"""
