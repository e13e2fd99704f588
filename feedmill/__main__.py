"""`python -m feedmill` is the `feedmill` command."""

from feedmill.cli import main

main()
