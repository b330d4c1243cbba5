"""A run: the stages put together, begun, driven and ended."""
