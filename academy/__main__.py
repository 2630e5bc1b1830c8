"""Makes `python -m academy` the same as the command `academy`."""

import sys

from academy.cli import main

if __name__ == "__main__":
    sys.exit(main())
