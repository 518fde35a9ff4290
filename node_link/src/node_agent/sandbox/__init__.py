"""Everything that runs a job in a sandbox, one file a runtime."""
