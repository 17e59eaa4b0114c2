"""A container on the network: its address, its ports, its networks, whom it may talk to."""
