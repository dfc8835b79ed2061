"""``python -m fedprivseg.cli``."""

from fedprivseg.cli.commands import main

main()
