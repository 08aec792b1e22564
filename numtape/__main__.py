"""`python -m numtape`: the `numtape` command, for where scripts are not on the path."""

import sys

from numtape.cli.main import main

sys.exit(main())
