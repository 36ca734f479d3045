"""The restore drill: what becomes of the shop when one of its stores is put back to an older backup."""
