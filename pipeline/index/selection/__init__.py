"""Selecting the fastest index that meets its targets: plan, try, build, tune, verify."""
