"""Registration and configuration of nodes, and their links: routes, a file a noun."""
