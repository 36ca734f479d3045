"""Releases rolled out while customers order, over and over: nobody notices, nothing is lost, nothing is done twice."""
