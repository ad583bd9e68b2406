"""Removal: clips leave a dataset and all that was made of it, and a certificate says so.

`vidal.dataset.removals` reads the lists and leaves out the clips on them; it lies lower, as builds and readers need it.
"""
