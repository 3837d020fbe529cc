"""For tests of agents and of adapters: a clock that is moved by hand and the conformance suite of the store port.

Nothing is imported here: `stepwell.testing.conformance` needs pytest, the rest does not.
"""
