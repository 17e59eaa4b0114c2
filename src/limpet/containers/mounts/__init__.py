"""What is mounted in a container: volumes, directories of the host, tmpfs, images; and how much they may take."""
