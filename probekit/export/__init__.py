"""Snapshots to files, streams and terminals. Stage 9. Each exporter is a plugin of its own and knows no probe."""
