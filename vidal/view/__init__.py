"""`vidal view`: a local server that shows a dataset in a browser."""
