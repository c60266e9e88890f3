"""Speed and memory, measured against peers; nothing imports these."""
