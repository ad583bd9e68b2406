"""Fetching from the network: a child process that may only speak to public addresses, and the manners around it."""
