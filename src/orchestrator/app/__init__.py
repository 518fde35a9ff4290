"""Use cases, one transaction each: no HTTP, no link."""
