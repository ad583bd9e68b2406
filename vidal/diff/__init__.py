"""`vidal diff`: clips that came and went between two datasets or revisions, and shifts of numbers and texts."""
