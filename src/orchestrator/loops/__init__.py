"""Background work: each loop reads the world and acts on what it finds, so that a lost poke costs one period."""
