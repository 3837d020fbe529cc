"""A store in the memory of one process: for tests, for trials, and as the plainest reading of the contract."""
