"""``python -m lucid`` is ``lucid``."""

from lucid.cli import main

main()
