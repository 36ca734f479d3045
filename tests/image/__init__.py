"""The image, built and run for real: `make image-test`. No part of `make test`: it wants root and several minutes."""
