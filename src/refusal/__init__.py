"""Placeholder: the public names are added with the core."""
