"""The runs of the fault harness that mutants are tried with."""

from tests.faults.mutants.mutant import Harness

SHORT = Harness(seed=28352)
"""Loses replies of both teams' databases and of the provider, kills the database server and cuts the order team off."""
DATABASE_DIES = Harness(seed=23079)
"""Kills the database server three times while orders come, and nothing else keeps them from coming."""
