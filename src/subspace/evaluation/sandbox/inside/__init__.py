"""What runs inside the sandbox.

A bare interpreter (`-I -S`) loads these modules as the top-level package `inside`: they use the standard library only
and import each other relatively.
"""
