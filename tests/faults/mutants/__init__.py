"""Whether the proof can fail: one safeguard of the shop is taken away at a time, and something must go red."""
