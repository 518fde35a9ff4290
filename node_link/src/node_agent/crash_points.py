"""The named points at which a crash test kills the agent (`CYNODE_FAULT=point`), and what has happened by then."""

POINTS = {
    "node.taken.before_sync": "an assignment was read; nothing is on disk: the server sends it again or ends it",
    "node.taken.after_sync": "`taken` is on disk, nobody was told: the next run reports it lost",
    "node.accepted.before_send": "as above",
    "node.accepted.after_send": "the server may have been told; the job may have begun: the next run reports it lost",
    "node.rejected.before_send": "nothing was taken: the server sends it again or ends it",
    "node.rejected.after_send": "as above, or the server has queued it again",
    "node.started.before_sync": "the job runs; nobody knows: the next run reports it lost",
    "node.started.after_sync": "`started` is on disk and goes out with the next link, then lost",
    "node.started.before_send": "as above",
    "node.started.after_send": "as above; the server may have it",
    "node.output.before_sync": "output was read from the job and is not on disk: lost with the attempt",
    "node.output.after_sync": "output is on disk and goes out with the next link, then lost",
    "node.output.before_send": "as above",
    "node.output.after_send": "as above; the server trims what it has",
    "node.finished.before_sync": "the job has ended and nobody knows: the next run reports it lost",
    "node.finished.after_sync": "the end is on disk: the next run reports it as it was",
    "node.finished.before_send": "as above",
    "node.finished.after_send": "as above; the server may have committed it, and acknowledges it once more",
    "node.hello.before_send": "what earlier runs left was ended; the spool says what is reported",
    "node.hello.after_send": "as above; the server may have taken the node over for this run",
}
