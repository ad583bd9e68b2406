"""Removal that follows: what was made of a dataset loses a removed clip, too, and a certificate says so."""
