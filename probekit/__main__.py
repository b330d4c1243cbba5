"""`python -m probekit`: the command line where the script is not on PATH."""

from .cli import main

main()
