"""``python -m fedprivseg.cli``."""

from fedprivseg.cli.process import main

main()
