"""``python -m nnunet_cmc``: the command line."""

import sys

from nnunet_cmc.commands.main import main

sys.exit(main())
