"""Using an encoder: embeddings of a dataset, and search by them."""
