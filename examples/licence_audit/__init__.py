"""Audits the licences of installed Python packages: one remembered step per package. Start it with `stepwell run`."""
