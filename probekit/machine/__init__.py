"""The machine and its kernel: what they offer, and the system calls."""
