"""`python -m triocoro`, which is the command `triocoro`."""

import sys

from ._cli import main

sys.exit(main())
