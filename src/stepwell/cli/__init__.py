"""The commands. They speak to the runtime alone; everything heavy is imported when a command needs it."""

from __future__ import annotations


def main() -> None:
    """The program `stepwell`: read the command line, do it, end with its exit code."""
    from stepwell.cli.root import stepwell

    stepwell.main(prog_name="stepwell")
