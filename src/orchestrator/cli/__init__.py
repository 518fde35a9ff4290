"""The `cynode` command: a client of a gateway, and what starts the server's parts."""
