"""What a container is to be: the user's words, checked, as an OCI `config.json` and the files beside it."""
