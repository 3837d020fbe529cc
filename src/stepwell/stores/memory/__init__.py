"""A store in the memory of one process: for tests, for trying things out, and as the plainest reading of the contract."""
