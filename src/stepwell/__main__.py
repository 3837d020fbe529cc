"""`python -m stepwell`: the commands, without an installed script."""

from stepwell.cli import main

if __name__ == "__main__":
    main()
