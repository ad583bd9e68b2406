"""Towers: one ViT per modality, a text tower, and the encoder that holds them."""
