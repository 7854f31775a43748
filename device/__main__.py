"""`python -m soundpost.device` is the `soundpost` command."""

from soundpost.device.cli import main

main()
