"""Experiments: commands, each a file of its own. Run from the root of the checkout.

python -m experiments.simclr --help
"""

import sys

if sys.argv[:1] == ["-m"]:  # a command is about to be run: this is how Python says it
    from experiments.running import console

    console.install()
