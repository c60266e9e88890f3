"""Speed and memory, measured beside peers; nothing imports these."""
