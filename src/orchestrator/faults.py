"""The named points at which a crash test kills a server process: the node's switch, under the server's name."""

from node_link.faults import reach as reach
