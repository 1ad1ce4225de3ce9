"""Where and how things compute: devices, threads, memory, compiled code."""
