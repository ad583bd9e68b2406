"""`vidal diff`: clips added and dropped between two datasets or revisions, and shifts of numbers and texts."""
