"""Welcomes new customers over several days. Start it with `stepwell run`."""
