"""What runs in the servers that are measured; those of others know nothing of holdtrue."""
