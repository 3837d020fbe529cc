"""What the core asks of the outside: Protocols, with the conditions an implementation must meet."""
