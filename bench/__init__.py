"""What cynode costs to run, measured on one machine with real processes: `make bench`."""
