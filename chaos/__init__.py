"""A seeded chaos run: real processes, faults at random all the time, and a judge that explains everything at the end.

`make chaos SEED=7 JOBS=500` runs it, `make chaos-check` plants faults and shows that the judge finds each.
"""
