"""The computer that this runs on: cores, native runtimes, fork and exit, other processes on Ray."""
