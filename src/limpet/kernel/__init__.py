"""kernel: the only room that knows a system call number. One thin function per call, errno as OSError, no policy."""
