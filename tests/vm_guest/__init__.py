"""Tests that run inside the virtual machine of `tests/vm`: `make test-vm`."""
