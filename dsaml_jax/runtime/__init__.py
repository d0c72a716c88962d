"""Files, processes, signals, the compilation cache, and the cost of compiled programs."""
