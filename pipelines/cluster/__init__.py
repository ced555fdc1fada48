"""Connects to Ray clusters and submits jobs to them."""

import os

# Ray reads this on import and then binds a local cluster to the loopback address. Despite the name,
# it has this effect on Linux, too.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
