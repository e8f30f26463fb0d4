"""Specs from what this host has: recipes, which are data, looked up on the machine by udev and the ld.so.cache.

recipe.py    the format of a recipe, and reading one
machine.py   what a recipe can ask of the machine
build.py     recipe + machine -> spec, pure but for the questions
store.py     specs as files: one rename each, only if something changed
watch.py     again whenever a device comes or goes
recipes/     the recipes that come with the package
"""
