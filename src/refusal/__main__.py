"""`python -m refusal` is the command `refusal`."""

from refusal.cli import main

main()
