"""Profiles of recipes, and estimates of what a build of many clips takes on a cluster."""
