"""Everything a person or a client program touches: routes, a file a noun."""
