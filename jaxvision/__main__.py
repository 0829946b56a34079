"""`python -m jaxvision`, the command."""

from jaxvision.cli import main

main()
