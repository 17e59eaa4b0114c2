"""What runs in a guest only, named in `tests.vm.run`: pytest does not find these files by itself."""
