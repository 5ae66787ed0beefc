// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * Reports the birth, the exec and the end of processes.
 *
 * Supported from Linux 6.1 on (bpf_loop came with 5.17). Needs BTF, CAP_BPF and
 * CAP_PERFMON. Hooks: the typed tracepoints sched_process_fork, _exec and _exit,
 * and iter/task for the processes that run already. Nothing here waits, and
 * nothing here changes what a process may do.
 *
 * Each program first counts the event as seen, then either filters it, drops
 * it or emits it, and counts that: the sensor reconciles by count, since
 * per-CPU sequence numbers can be reordered by preemption.
 */
#include "kernel.h"

/* The object is linked by the kernel with GPL-only helpers. */
char dual_licence[] SEC("license") = "Dual MIT/GPL";

/* Sized by the sensor at load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8388608);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct inwarden_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, INWARDEN_KINDS);
	__type(key, __u32);
	__type(value, struct inwarden_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u8);
} cgroups SEC(".maps");

struct exec_record {
	struct inwarden_header header;
	struct inwarden_exec fixed;
	__u8 data[INWARDEN_MAX_DATA_BYTES];
};

struct fork_record {
	struct inwarden_header header;
	struct inwarden_fork fixed;
};

struct exit_record {
	struct inwarden_header header;
	struct inwarden_exit fixed;
};

struct seed_record {
	struct inwarden_header header;
	struct inwarden_seed fixed;
};

/*
 * An exec record is too large for the stack and its length is known only once
 * its paths were walked. A per-CPU slot is claimed for as long as the program
 * runs; where programs can be preempted a second task on the CPU takes the
 * next slot. Only exec uses it: the union puts the other records into the BTF.
 */
struct scratch {
	__u32 claimed;
	__u32 reserved;
	union {
		struct exec_record exec;
		struct fork_record fork;
		struct exit_record exit;
		struct seed_record seed;
	};
};

#define SCRATCH_SLOTS 4

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

_Static_assert(sizeof(struct scratch) <= 32768, "per-CPU values are limited to 32 KiB");

#define COUNT(counter) __sync_fetch_and_add(&(counter), 1)

static __always_inline __u32 pid_namespace_of(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	struct pid_namespace *ns = 0;
	__u32 level, inum = 0;

	if (!pid)
		return 0;
	level = pid->level;
	bpf_probe_read_kernel(&ns, sizeof(ns),
			      (char *)FIELD_ADDRESS(pid, numbers[0]) + level * sizeof(struct upid) +
				      __builtin_offsetof(struct upid, ns));
	if (ns)
		READ_KERNEL(inum, ns, ns.inum);
	return inum;
}

static __always_inline __u32 net_namespace_of(struct task_struct *task)
{
	struct nsproxy *nsproxy = task->nsproxy;

	return nsproxy ? nsproxy->net_ns->ns.inum : 0;
}

static __always_inline void fill_header(struct inwarden_header *header, struct task_struct *task,
					__u8 kind, __u64 now)
{
	struct task_struct *parent = task->real_parent;
	struct nsproxy *nsproxy = task->nsproxy;
	const struct cred *cred = task->cred;

	header->version = INWARDEN_WIRE_VERSION;
	header->kind = kind;
	header->flags = 0;
	header->boot_time_ns = now;
	header->leader_start_ns = task->group_leader->start_boottime;
	header->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	header->tgid = task->tgid;
	header->tid = task->pid;
	header->parent_tgid = parent->tgid;
	header->parent_start_ns = parent->group_leader->start_boottime;
	header->uid = cred->uid.val;
	header->gid = cred->gid.val;
	header->cpu = bpf_get_smp_processor_id();
	header->mount_ns = nsproxy ? nsproxy->mnt_ns->ns.inum : 0;
	header->verdict = 0;
	bpf_probe_read_kernel(header->comm, sizeof(header->comm), FIELD_ADDRESS(task, comm));
}

/* Counts the event; false if a filter wants it left out. */
static __always_inline int wanted(struct inwarden_counters *counter,
				  const struct inwarden_settings *setting, struct task_struct *task,
				  __u64 *sequence)
{
	*sequence = COUNT(counter->seen) + 1;
	if (setting->own_tgid && task->tgid == setting->own_tgid) {
		COUNT(counter->filtered_own);
		return 0;
	}
	if (setting->filter_cgroups) {
		__u64 id = task->cgroups->dfl_cgrp->kn->id;

		if (!bpf_map_lookup_elem(&cgroups, &id)) {
			COUNT(counter->filtered_cgroup);
			return 0;
		}
	}
	return 1;
}

/* Waking the reader costs more than the event: it polls, and is woken only when much waits. */
static __always_inline void emit(struct inwarden_counters *counter,
				 const struct inwarden_settings *setting, void *record, __u64 size)
{
	__u64 flags = bpf_ringbuf_query(&control, BPF_RB_AVAIL_DATA) >= setting->wakeup_bytes ?
			      BPF_RB_FORCE_WAKEUP :
			      BPF_RB_NO_WAKEUP;

	if (bpf_ringbuf_output(&control, record, size, flags))
		COUNT(counter->dropped_ring_full);
	else
		COUNT(counter->emitted);
}

static __always_inline struct inwarden_settings *find_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline struct inwarden_counters *find_counters(__u32 kind)
{
	return bpf_map_lookup_elem(&counters, &kind);
}

SEC("tp_btf/sched_process_fork")
int inwarden_fork(__u64 *context)
{
	struct task_struct *forker = (void *)context[0];
	struct task_struct *child = (void *)context[1];
	struct inwarden_settings *setting = find_settings();
	struct inwarden_counters *counter = find_counters(INWARDEN_FORK);
	struct fork_record record = {};
	__u64 now = bpf_ktime_get_boot_ns();

	/* A thread is no process: not an event, so not counted. */
	if (!setting || !counter || child->pid != child->tgid)
		return 0;
	if (!wanted(counter, setting, child, &record.header.sequence))
		return 0;
	fill_header(&record.header, child, INWARDEN_FORK, now);
	record.header.length = sizeof(record);
	record.fixed.pid_ns = pid_namespace_of(child);
	record.fixed.net_ns = net_namespace_of(child);
	record.fixed.forker_tgid = forker->tgid;
	record.fixed.forker_start_ns = forker->group_leader->start_boottime;
	emit(counter, setting, &record, sizeof(record));
	return 0;
}

static __always_inline int report_exit(struct task_struct *task)
{
	struct inwarden_settings *setting = find_settings();
	struct inwarden_counters *counter = find_counters(INWARDEN_EXIT);
	struct signal_struct *signal = task->signal;
	struct exit_record record = {};
	__u64 now = bpf_ktime_get_boot_ns();

	if (!setting || !counter)
		return 0;
	if (!wanted(counter, setting, task, &record.header.sequence))
		return 0;
	fill_header(&record.header, task, INWARDEN_EXIT, now);
	record.header.length = sizeof(record);
	record.fixed.pid_ns = pid_namespace_of(task);
	record.fixed.net_ns = net_namespace_of(task);
	/* What wait(2) reports, as in wait_task_zombie(). */
	record.fixed.status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code :
								   task->group_leader->exit_code;
	emit(counter, setting, &record, sizeof(record));
	return 0;
}

/* Linux 6.16 and later say which thread is the last. */
SEC("tp_btf/sched_process_exit")
int inwarden_exit(__u64 *context)
{
	struct task_struct *task = (void *)context[0];
	/* A bool: the upper bits of its register are not defined. */
	__u8 group_dead = context[1];

	return group_dead ? report_exit(task) : 0;
}

/*
 * Before 6.16: no thread is left. Two threads that end at once on two CPUs can
 * both see that; the sensor delivers the first report only.
 */
SEC("tp_btf/sched_process_exit")
int inwarden_exit_before_6_16(__u64 *context)
{
	struct task_struct *task = (void *)context[0];

	return task->signal->live.counter == 0 ? report_exit(task) : 0;
}

struct walk {
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct dentry *root_dentry;
	struct vfsmount *root_mnt;
	__u32 slot;
	__u32 offset;
	__u32 end;
	__u32 outcome;
};

enum walk_outcome {
	WALK_UNFINISHED = 0,
	WALK_COMPLETE = 1,
	WALK_DETACHED = 2,
};

/* One step up: returns 1 to stop. */
static long walk_step(__u32 index, void *context)
{
	struct walk *walk = context;
	struct dentry *dentry = walk->dentry, *parent = 0, *mount_root = 0;
	struct vfsmount *mnt = walk->mnt;
	struct scratch *scratch;
	struct qstr *name_field;
	const unsigned char *name = 0;
	__u32 offset = walk->offset;
	__u32 slot = walk->slot;
	long bytes;

	if (dentry == walk->root_dentry && mnt == walk->root_mnt) {
		walk->outcome = WALK_COMPLETE;
		return 1;
	}
	READ_KERNEL(parent, dentry, d_parent);
	READ_KERNEL(mount_root, mnt, mnt_root);
	if (dentry == mount_root) {
		struct mount *above = 0;
		struct mount *mount = (void *)mnt - __builtin_preserve_field_info(
							    ((struct mount *)0)->mnt, 0);

		READ_KERNEL(above, mount, mnt_parent);
		if (!above || above == mount) {
			walk->outcome = WALK_COMPLETE;
			return 1;
		}
		READ_KERNEL(walk->dentry, mount, mnt_mountpoint);
		walk->mnt = FIELD_ADDRESS(above, mnt);
		return 0;
	}
	scratch = bpf_map_lookup_elem(&scratches, &slot);
	if (!scratch || offset >= walk->end)
		return 1;
	barrier_var(offset);
	if (offset > INWARDEN_MAX_PATHS_BYTES - INWARDEN_MAX_COMPONENT_BYTES)
		return 1;
	name_field = FIELD_ADDRESS(dentry, d_name);
	READ_KERNEL(name, name_field, name);
	bytes = bpf_probe_read_kernel_str(scratch->exec.data + offset, INWARDEN_MAX_COMPONENT_BYTES,
					  name);
	if (bytes <= 0)
		return 1;
	walk->offset = offset + bytes;
	if (dentry == parent) {
		walk->outcome = WALK_DETACHED;
		return 1;
	}
	walk->dentry = parent;
	return 0;
}

/* Upper half of what append_path returns; the lower half is the new offset. */
#define PATH_TRUNCATED 0x10000
#define PATH_DETACHED 0x20000

/*
 * Appends the components of a path, leaf first, up to the root of the process.
 * The arguments are addresses of `struct path`. A global function with scalar
 * arguments is verified once, alone, instead of inside its caller.
 */
__noinline int append_path(__u64 path_address, __u64 root_address, __u32 slot, __u32 offset)
{
	struct path *path = (void *)path_address;
	struct path *root = (void *)root_address;
	struct walk walk = {
		.slot = slot,
		.offset = offset,
		.end = offset + INWARDEN_MAX_PATH_BYTES,
	};
	int flags = 0;

	READ_KERNEL(walk.dentry, path, dentry);
	READ_KERNEL(walk.mnt, path, mnt);
	READ_KERNEL(walk.root_dentry, root, dentry);
	READ_KERNEL(walk.root_mnt, root, mnt);
	bpf_loop(INWARDEN_MAX_PATH_BYTES / 2, walk_step, &walk, 0);
	if (walk.outcome == WALK_UNFINISHED)
		flags = PATH_TRUNCATED;
	else if (walk.outcome == WALK_DETACHED)
		flags = PATH_DETACHED;
	return (walk.offset & 0xffff) | flags;
}

#define PAGE_BYTES 4096

/* Reads what can be read without faulting; returns the bytes read. */
static __always_inline __u32 read_argv(struct scratch *scratch, __u32 offset, __u64 from, __u32 wanted)
{
	__u32 done = 0;

	barrier_var(offset);
	if (offset > INWARDEN_MAX_PATHS_BYTES)
		return 0;
	barrier_var(wanted);
	if (wanted > INWARDEN_MAX_ARGV_BYTES)
		return 0;
	if (!bpf_probe_read_user(scratch->exec.data + offset, wanted, (void *)from))
		return wanted;
	/* A page is not resident: keep what precedes it. */
#pragma clang loop unroll(disable)
	for (int page = 0; page < INWARDEN_MAX_ARGV_BYTES / PAGE_BYTES; page++) {
		__u32 to_page_end = PAGE_BYTES - ((from + done) & (PAGE_BYTES - 1));
		__u32 bytes = wanted - done < to_page_end ? wanted - done : to_page_end;

		barrier_var(bytes);
		if (bytes > PAGE_BYTES)
			break;
		barrier_var(done);
		if (done > INWARDEN_MAX_ARGV_BYTES - PAGE_BYTES)
			break;
		if (!bytes || bpf_probe_read_user(scratch->exec.data + offset + done, bytes, (void *)(from + done)))
			break;
		done += bytes;
	}
	return done;
}

/* Fills the claimed slot; returns the bytes of data. */
static __always_inline __u32 fill_exec(struct scratch *scratch, __u32 slot, struct task_struct *task,
				       const struct inwarden_settings *setting,
				       struct inwarden_counters *counter)
{
	struct mm_struct *mm = task->mm;
	/* Read as numbers: a global function takes no kernel pointers. */
	struct fs_struct *fs = 0;
	struct file *exe_file = 0;
	__u64 arg_start = mm->arg_start, arg_end = mm->arg_end;
	__u64 true_bytes = arg_end > arg_start ? arg_end - arg_start : 0;
	__u32 cap = setting->max_argv_bytes;
	__u32 exe_end = 0, cwd_end, argv_bytes, wanted;
	__u16 flags = 0;
	int walked;

	READ_KERNEL(fs, task, fs);
	READ_KERNEL(exe_file, mm, exe_file);
	if (exe_file) {
		walked = append_path((__u64)FIELD_ADDRESS(exe_file, f_path),
				     (__u64)FIELD_ADDRESS(fs, root), slot, 0);
		exe_end = walked & 0xffff;
		flags |= walked & PATH_TRUNCATED ? INWARDEN_EXE_TRUNCATED : 0;
		flags |= walked & PATH_DETACHED ? INWARDEN_EXE_DETACHED : 0;
	}
	walked = append_path((__u64)FIELD_ADDRESS(fs, pwd), (__u64)FIELD_ADDRESS(fs, root), slot, exe_end);
	cwd_end = walked & 0xffff;
	flags |= walked & PATH_TRUNCATED ? INWARDEN_CWD_TRUNCATED : 0;
	flags |= walked & PATH_DETACHED ? INWARDEN_CWD_DETACHED : 0;
	if (flags)
		COUNT(counter->path_incomplete);

	wanted = true_bytes < cap ? true_bytes : cap;
	argv_bytes = wanted ? read_argv(scratch, cwd_end, arg_start, wanted) : 0;
	if (true_bytes > cap)
		flags |= INWARDEN_ARGV_TRUNCATED;
	if (argv_bytes < wanted) {
		flags |= INWARDEN_ARGV_UNREADABLE;
		COUNT(counter->argv_unreadable);
	}
	scratch->exec.header.flags = flags;
	scratch->exec.fixed.argv_true_bytes = true_bytes;
	scratch->exec.fixed.exe_bytes = exe_end;
	scratch->exec.fixed.cwd_bytes = cwd_end - exe_end;
	scratch->exec.fixed.argv_bytes = argv_bytes;
	return cwd_end + argv_bytes;
}

SEC("tp_btf/sched_process_exec")
int inwarden_exec(__u64 *context)
{
	struct task_struct *task = (void *)context[0];
	struct inwarden_settings *setting = find_settings();
	struct inwarden_counters *counter = find_counters(INWARDEN_EXEC);
	struct scratch *scratch = 0;
	__u64 sequence, now = bpf_ktime_get_boot_ns();
	__u32 slot = 0, size;

	if (!setting || !counter)
		return 0;
	if (!wanted(counter, setting, task, &sequence))
		return 0;
#pragma clang loop unroll(full)
	for (int attempt = 0; attempt < SCRATCH_SLOTS; attempt++) {
		slot = attempt;
		scratch = bpf_map_lookup_elem(&scratches, &slot);
		if (!scratch)
			return 0;
		if (!__sync_lock_test_and_set(&scratch->claimed, 1))
			break;
		scratch = 0;
	}
	if (!scratch) {
		COUNT(counter->dropped_no_scratch);
		return 0;
	}
	fill_header(&scratch->exec.header, task, INWARDEN_EXEC, now);
	scratch->exec.header.sequence = sequence;
	scratch->exec.fixed.pid_ns = pid_namespace_of(task);
	scratch->exec.fixed.net_ns = net_namespace_of(task);
	scratch->exec.fixed.old_tid = context[1];
	size = __builtin_offsetof(struct exec_record, data) +
	       fill_exec(scratch, slot, task, setting, counter);
	barrier_var(size);
	if (size > sizeof(struct exec_record))
		size = sizeof(struct exec_record);
	scratch->exec.header.length = size;
	emit(counter, setting, &scratch->exec, size);
	/* Same CPU: programs do not migrate, so a plain store after a compiler barrier releases. */
	asm volatile("" ::: "memory");
	*(volatile __u32 *)&scratch->claimed = 0;
	return 0;
}

/* Reports every process that runs already; read through a file by the sensor. */
SEC("iter/task")
int inwarden_seed(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct seed_record record = {};

	if (!task || task->pid != task->tgid)
		return 0;
	fill_header(&record.header, task, INWARDEN_SEED, bpf_ktime_get_boot_ns());
	record.header.length = sizeof(record);
	record.fixed.pid_ns = pid_namespace_of(task);
	record.fixed.net_ns = net_namespace_of(task);
	bpf_seq_write(context->meta->seq, &record, sizeof(record));
	return 0;
}
