/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The few kernel types, helpers and constants the programs use.
 *
 * The structs name only the fields that are read; CO-RE moves each access to
 * where the running kernel keeps the field (preserve_access_index), so neither
 * vmlinux.h nor kernel headers are needed. Helper numbers are kernel ABI:
 * https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/bpf.h#L5525
 */
#ifndef INWARDEN_KERNEL_H
#define INWARDEN_KERNEL_H

#include "inwarden_event.h"

typedef int __s32;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
#define __core __attribute__((preserve_access_index))
#define barrier_var(variable) asm volatile("" : "+r"(variable))

#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_AVAIL_DATA 0

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_probe_read_user)(void *dst, __u32 size, const void *src) = (void *)112;
static long (*const bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *dst, __u32 size, const void *src) = (void *)115;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*const bpf_seq_write)(void *seq, const void *data, __u32 len) = (void *)127;
static long (*const bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static __u64 (*const bpf_ringbuf_query)(void *ring, __u64 flags) = (void *)134;
static long (*const bpf_loop)(__u32 nr_loops, void *callback, void *context, __u64 flags) = (void *)181;

/* Address of a field as the running kernel lays it out. */
#define FIELD_ADDRESS(pointer, field) ((void *)__builtin_preserve_access_index(&(pointer)->field))
#define READ_KERNEL(destination, pointer, field) \
	bpf_probe_read_kernel(&(destination), sizeof(destination), FIELD_ADDRESS(pointer, field))

struct qstr {
	const unsigned char *name;
} __core;

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
} __core;

struct vfsmount {
	struct dentry *mnt_root;
} __core;

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} __core;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} __core;

struct file {
	struct path f_path;
} __core;

struct fs_struct {
	struct path root;
	struct path pwd;
} __core;

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
} __core;

struct ns_common {
	unsigned int inum;
} __core;

struct mnt_namespace {
	struct ns_common ns;
} __core;

struct pid_namespace {
	struct ns_common ns;
} __core;

struct net {
	struct ns_common ns;
} __core;

struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
} __core;

/* Not relocated: indexed by hand. Unchanged since 2.6.24. */
struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
} __core;

struct kernfs_node {
	__u64 id;
} __core;

struct cgroup {
	struct kernfs_node *kn;
} __core;

struct css_set {
	struct cgroup *dfl_cgrp;
} __core;

typedef struct {
	unsigned int val;
} kuid_t;

typedef struct {
	unsigned int val;
} kgid_t;

struct cred {
	kuid_t uid;
	kgid_t gid;
} __core;

typedef struct {
	int counter;
} atomic_t;

#define SIGNAL_GROUP_EXIT 4

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
} __core;

struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	char comm[16];
	__u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
	struct pid *thread_pid;
	struct css_set *cgroups;
	const struct cred *cred;
	struct signal_struct *signal;
} __core;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __core;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#endif
