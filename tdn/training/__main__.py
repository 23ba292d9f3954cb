"""``python -m tdn.training`` is ``tdn-train``, for torchrun."""

import sys

from .cli import main

sys.exit(main())
