"""How it is measured: cases, instruments, isolated workers, and the command line that composes everything."""
