"""`python -m feedmill` is the `feedmill` command."""

from feedmill.entry_point import main

main()
