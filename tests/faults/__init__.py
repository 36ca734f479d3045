"""The whole shop under load while a seeded schedule of faults hits it; then it heals, and its books are audited."""
