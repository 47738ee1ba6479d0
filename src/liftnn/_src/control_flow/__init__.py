"""Loops and branches: `scan`, `while_loop`, `fori_loop`, `map`, `associative_scan`, `cond` and `switch`."""
