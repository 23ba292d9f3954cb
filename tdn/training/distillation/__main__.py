"""``python -m tdn.training.distillation``: the command `tdn-distill`."""

import sys

from .cli import main

sys.exit(main())
