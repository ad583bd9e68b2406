"""A dataset in other shapes: joint tars, open_clip's pairs, VIDAL-10M's annotation JSON; and documents."""
