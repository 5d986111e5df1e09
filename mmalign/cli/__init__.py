"""One file for each command of `mmalign`."""
