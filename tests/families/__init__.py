"""Small models of the families that people load, in the hub's own layout; `registry.build` writes one."""
