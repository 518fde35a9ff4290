"""The wire protocol of a node link (`node-link.v1`): what both ends must agree on, and nothing of either end."""
