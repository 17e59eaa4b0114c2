"""build: a Dockerfile in, an image out: parse, then plan (plain data), then execute."""
