"""Typed readers of artifacts: the only code that knows the paths inside them."""
