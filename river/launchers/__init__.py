"""Launchers: what can start the supervisor of a machine.

A launcher has `launch(fork, inherited, env) -> (socket, process)`: a connected line to a running supervisor, and a
handle with `pid`, `wait(timeout)` and `kill()`.  `local` is the only one so far.
"""
