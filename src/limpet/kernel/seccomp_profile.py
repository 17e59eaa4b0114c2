"""What a container may ask of the kernel when nobody says otherwise: equal in effect to Docker's default profile.

The table is our own, by what the calls are for; what it allows is what moby/profiles `seccomp/default_linux.go` of
July 2026 allows on x86-64 and aarch64. All else fails with EPERM (calls that the profile's newest is older than, with
ENOSYS: see `seccomp`). Not allowed without a capability are: keys, io_uring, userfaultfd, namespaces, mounts, modules,
swap, the clock, NUMA policy, and sockets of AF_VSOCK and AF_ALG.
"""

from __future__ import annotations

ALWAYS = """
    open openat openat2 creat close close_range dup dup2 dup3 read readv pread64 preadv preadv2 write writev pwrite64
    pwritev pwritev2 lseek _llseek sendfile sendfile64 splice tee vmsplice copy_file_range readahead fcntl fcntl64
    ioctl flock fsync fdatasync sync syncfs sync_file_range fadvise64 fadvise64_64 fallocate
    truncate truncate64 ftruncate ftruncate64 cachestat memfd_create memfd_secret

    access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx
    statfs statfs64 fstatfs fstatfs64 statmount listmount getcwd chdir fchdir umask
    getdents getdents64 readlink readlinkat name_to_handle_at
    mkdir mkdirat mknod mknodat rmdir link linkat symlink symlinkat unlink unlinkat rename renameat renameat2
    chmod fchmod fchmodat fchmodat2 chown chown32 lchown lchown32 fchown fchown32 fchownat
    utime utimes futimesat utimensat utimensat_time64
    getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
    listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark

    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
    eventfd eventfd2 signalfd signalfd4 pipe pipe2
    io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64

    socketcall socketpair bind connect listen accept accept4 shutdown getsockname getpeername getsockopt setsockopt
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64

    ipc semget semop semctl semtimedop semtimedop_time64 msgget msgsnd msgrcv msgctl shmget shmat shmdt shmctl
    mq_open mq_unlink mq_notify mq_getsetattr
    mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64

    brk mmap mmap2 munmap mremap mprotect madvise mincore msync mseal remap_file_pages map_shadow_stack
    mlock mlock2 mlockall munlock munlockall pkey_alloc pkey_free pkey_mprotect membarrier
    futex futex_time64 futex_wait futex_waitv futex_wake futex_requeue set_robust_list get_robust_list rseq

    fork vfork execve execveat exit exit_group wait4 waitid waitpid prctl seccomp
    getpid getppid gettid getpgid getpgrp setpgid getsid setsid set_tid_address set_thread_area get_thread_area
    pidfd_open process_mrelease ptrace process_vm_readv process_vm_writev
    getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname getcpu getrandom uretprobe
    getpriority setpriority ioprio_get ioprio_set
    sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
    sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval sched_rr_get_interval_time64
    landlock_create_ruleset landlock_add_rule landlock_restrict_self

    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
    setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32 setresgid
    setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 getgroups getgroups32 setgroups setgroups32 capget capset

    kill tkill tgkill pidfd_send_signal pause restart_syscall sigaltstack sigprocmask sigreturn
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64

    time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 adjtimex clock_adjtime
    clock_adjtime64 nanosleep clock_nanosleep clock_nanosleep_time64 alarm getitimer setitimer
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
"""

BY_MACHINE = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
}

BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        clone clone3 unshare setns mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount
        fspick quotactl quotactl_fd fanotify_init sethostname setdomainname bpf perf_event_open syslog lookup_dcookie
        lsm_get_self_attr lsm_set_self_attr lsm_list_modules
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy set_mempolicy set_mempolicy_home_node mbind",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

_AF_ALG, _AF_VSOCK = 38, 40

BY_ARGUMENT = (
    ("socket", "SCMP_CMP_LT", _AF_ALG),
    ("socket", "SCMP_CMP_EQ", _AF_ALG + 1),
    ("socket", "SCMP_CMP_GT", _AF_VSOCK),
    # personality(2): Linux, PER_LINUX32, UNAME26, both, and "tell me"; not ADDR_NO_RANDOMIZE.
    ("personality", "SCMP_CMP_EQ", 0),
    ("personality", "SCMP_CMP_EQ", 0x8),
    ("personality", "SCMP_CMP_EQ", 0x20000),
    ("personality", "SCMP_CMP_EQ", 0x20008),
    ("personality", "SCMP_CMP_EQ", 0xFFFFFFFF),
)
"""Allowed if the first argument is so."""

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
CLONE_MASK = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
"""Without CAP_SYS_ADMIN: clone(2) with none of these flags; clone3, whose flags a filter can't see, does not exist."""
