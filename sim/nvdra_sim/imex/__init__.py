"""Stand-ins for `nvidia-imex` and `nvidia-imex-ctl`: real processes that really connect.

They keep to what is known of the real ones: the same configuration and nodes file, read once; the
same signals, among them the 5 s in which a second SIGUSR1 is ignored; the same outputs. Only the
standard library, so that they run wherever there is a Python.
"""
