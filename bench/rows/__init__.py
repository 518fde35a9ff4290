"""One module a row of the table, named after it (a few measure what belongs together)."""

from bench.rows import (
    bubblewrap_throughput,
    claim_cost,
    costs,
    idle_dispatch,
    idle_roundtrip,
    link_storm,
    links,
    live_output,
    memory,
    noop_throughput,
    podman_throughput,
    process_throughput,
    start,
    submit_batch,
    submit_single,
)

MODULES = (
    idle_dispatch,
    idle_roundtrip,
    noop_throughput,
    process_throughput,
    bubblewrap_throughput,
    podman_throughput,
    submit_single,
    submit_batch,
    claim_cost,
    links,
    live_output,
    memory,
    start,
    link_storm,
    costs,
)
