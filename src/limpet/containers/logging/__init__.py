"""What containers print: kept by one of several drivers, bounded, read back."""
