"""Packages of others: each is tested in an environment of its own, by tests/live/test_third_party.py."""

collect_ignore_glob = ["*/tests/*"]
