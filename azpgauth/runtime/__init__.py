"""What all rooms stand on: how to wait, what a fork undoes, what must not show."""
