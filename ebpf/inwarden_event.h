/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The wire format between the eBPF programs and the sensor, and nothing else.
 *
 * A record is the 96-byte header, then the fixed part of its kind, then the
 * data whose lengths the fixed part gives, without padding between them. All
 * numbers are in the byte order of the machine. Every field is naturally
 * aligned and padding is spelled out, so that C, Rust and the BTF of the
 * object agree; crates/sensor/src/wire/mod.rs mirrors it and a test there
 * compares both with the BTF.
 */
#ifndef INWARDEN_EVENT_H
#define INWARDEN_EVENT_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define INWARDEN_WIRE_VERSION 1

enum inwarden_kind {
	INWARDEN_FORK = 0, /* a new process, never a thread */
	INWARDEN_EXEC = 1,
	INWARDEN_EXIT = 2, /* the last thread of a process ended */
	INWARDEN_KINDS = 3, /* kinds with counters */
	INWARDEN_SEED = 3, /* a process that was found running, from iter/task */
};

/* inwarden_header.flags */
#define INWARDEN_ARGV_TRUNCATED 0x0001 /* longer than the cap */
#define INWARDEN_ARGV_UNREADABLE 0x0002 /* a page of it was not resident */
#define INWARDEN_EXE_TRUNCATED 0x0004
#define INWARDEN_EXE_DETACHED 0x0008 /* no path: memfd, or unmounted */
#define INWARDEN_CWD_TRUNCATED 0x0010
#define INWARDEN_CWD_DETACHED 0x0020

struct inwarden_header {
	__u8 version;
	__u8 kind;
	__u16 flags;
	__u32 length; /* of the whole record, in bytes */
	__u64 sequence; /* per CPU and kind, from 1 */
	__u64 boot_time_ns;
	__u64 leader_start_ns; /* start_boottime of the thread group leader */
	__u64 cgroup_id; /* cgroup v2 */
	__u32 tgid; /* in the initial pid namespace, as all ids here */
	__u32 tid;
	__u32 parent_tgid;
	__u32 uid; /* real, in the initial user namespace */
	__u32 gid;
	__u32 cpu;
	__u32 mount_ns;
	__u32 verdict; /* reserved for enforcement, 0 */
	__u64 parent_start_ns; /* start_boottime of the parent's leader */
	char comm[16];
};

struct inwarden_fork {
	__u32 pid_ns;
	__u32 net_ns;
	__u64 forker_start_ns; /* who called fork: not the parent with CLONE_PARENT */
	__u32 forker_tgid;
	__u32 reserved;
};

struct inwarden_exec {
	__u32 pid_ns;
	__u32 net_ns;
	__u64 argv_true_bytes; /* in the process, the NUL after each included */
	__u32 old_tid; /* of the thread that called execve */
	__u32 exe_bytes; /* data: components, leaf first, NUL after each */
	__u32 cwd_bytes; /* data: likewise */
	__u32 argv_bytes; /* data: as in the process */
};

struct inwarden_exit {
	__u32 pid_ns;
	__u32 net_ns;
	__u32 status; /* as wait(2) reports it: signal | core << 7 | code << 8 */
	__u32 reserved;
};

struct inwarden_seed {
	__u32 pid_ns;
	__u32 net_ns;
};

/* Map value of `settings`, one entry, written before the programs attach. */
struct inwarden_settings {
	__u32 own_tgid; /* 0: unknown */
	__u32 max_argv_bytes;
	__u32 filter_cgroups; /* 1: only members of the map `cgroups` */
	__u32 wakeup_bytes; /* wake the reader when this much waits */
};

/*
 * Map value of `counters`, one entry per kind and CPU:
 * seen = emitted + the dropped + the filtered ones.
 */
struct inwarden_counters {
	__u64 seen;
	__u64 emitted;
	__u64 dropped_ring_full;
	__u64 dropped_no_scratch;
	__u64 filtered_own;
	__u64 filtered_cgroup;
	__u64 argv_unreadable; /* emitted, but flagged */
	__u64 path_incomplete; /* emitted, but flagged */
};

/* Each path needs room for one more component than its limit. */
#define INWARDEN_MAX_PATH_BYTES 4096
#define INWARDEN_MAX_COMPONENT_BYTES 256
#define INWARDEN_MAX_ARGV_BYTES 16384
#define INWARDEN_MAX_PATHS_BYTES (2 * (INWARDEN_MAX_PATH_BYTES + INWARDEN_MAX_COMPONENT_BYTES))
#define INWARDEN_MAX_DATA_BYTES (INWARDEN_MAX_PATHS_BYTES + INWARDEN_MAX_ARGV_BYTES)

#define INWARDEN_SIZE(type, bytes) \
	_Static_assert(sizeof(struct type) == (bytes), "size of " #type)
#define INWARDEN_OFFSET(type, field, bytes) \
	_Static_assert(__builtin_offsetof(struct type, field) == (bytes), #type "." #field)

INWARDEN_SIZE(inwarden_header, 96);
INWARDEN_OFFSET(inwarden_header, flags, 2);
INWARDEN_OFFSET(inwarden_header, length, 4);
INWARDEN_OFFSET(inwarden_header, sequence, 8);
INWARDEN_OFFSET(inwarden_header, boot_time_ns, 16);
INWARDEN_OFFSET(inwarden_header, leader_start_ns, 24);
INWARDEN_OFFSET(inwarden_header, cgroup_id, 32);
INWARDEN_OFFSET(inwarden_header, tgid, 40);
INWARDEN_OFFSET(inwarden_header, parent_tgid, 48);
INWARDEN_OFFSET(inwarden_header, mount_ns, 64);
INWARDEN_OFFSET(inwarden_header, parent_start_ns, 72);
INWARDEN_OFFSET(inwarden_header, comm, 80);
INWARDEN_SIZE(inwarden_fork, 24);
INWARDEN_SIZE(inwarden_exec, 32);
INWARDEN_SIZE(inwarden_exit, 16);
INWARDEN_SIZE(inwarden_seed, 8);
INWARDEN_SIZE(inwarden_settings, 16);
INWARDEN_SIZE(inwarden_counters, 64);

#endif
