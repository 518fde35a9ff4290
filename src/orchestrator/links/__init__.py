"""The live links of this process: what each node holds, and what its messages mean."""
