"""Attacks on the package that are run again and again: damaged files, hostile calls, interleavings, and the C core.

Each attack is a module with a function `case(random, folder)`: one case, made of nothing but the random numbers that
it is given, so that a seed and a number make it again. It raises `Flaw` for what must not happen. The cases are run by
`engine`, in other processes, since what is looked for may end a process or never end. See README.md for the commands.
"""
