"""Sections of the page: a module and a template of the same name for each.

Each module has one function, `section`, that picks the numbers and gives them to the template;
the template has the words.
"""
