"""A store in one SQLite file: one writing thread a process, any number of processes. Made by `make_store("sqlite:///…")`."""
