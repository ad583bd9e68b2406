"""Towers: one ViT per modality, a frozen text tower, and the encoder that holds them."""
