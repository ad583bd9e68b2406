"""Removal: clips leave a dataset and all that was made of it, and a certificate says so.

`vidal.dataset.removals` reads the lists and leaves the clips on them out; it lies lower, as builds and readers do so, too.
"""
