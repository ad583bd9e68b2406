"""Reading a dataset: rows, members by place, samples, conditions."""
