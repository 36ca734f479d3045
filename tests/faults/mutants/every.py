"""Every safeguard that is taken away."""

from tests.faults.mutants.effects import EFFECTS
from tests.faults.mutants.intake import INTAKE
from tests.faults.mutants.keys import KEYS
from tests.faults.mutants.saga import SAGA

MUTANTS = (*KEYS, *EFFECTS, *SAGA, *INTAKE)
