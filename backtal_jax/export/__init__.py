"""A trained network as files for those without this package, or without JAX."""
