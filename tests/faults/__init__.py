"""Faults: a harness that kills everything at random, bombs and floods, a store that somebody damaged."""
