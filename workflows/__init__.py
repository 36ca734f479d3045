"""The order saga: deterministic code, and the one door through which other processes reach it."""
