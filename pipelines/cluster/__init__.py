"""Ray clusters: the connection to one, and jobs that are sent to one."""

import os

# Read by Ray when it is imported: what listens on a cluster of this machine alone is then bound to
# the loopback address. The name is old: on Linux it has this effect too.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
