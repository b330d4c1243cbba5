"""Other kernels: Debian's, booted under QEMU with this machine's files, for the tests in tests/kernel."""
