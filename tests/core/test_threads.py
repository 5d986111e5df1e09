"""Waiting threads leave the processor to others: what torch computes with is told so before it is loaded."""

import os
import subprocess
import sys


def test_importing_mmalign_says_how_threads_wait_and_leaves_what_was_said() -> None:
    code = "import mmalign, os, sys; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    for said, told in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        bare = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        done = subprocess.run([sys.executable, "-c", code], env=bare | said, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == told
