"""``python -m tunesmith``."""

from tunesmith.cli.app import main

main()
