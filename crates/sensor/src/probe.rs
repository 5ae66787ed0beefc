//! What the machine allows, and how to get what it does not.

use std::{fs, io, path::PathBuf};

use crate::SensorError;

const BTF: &str = "/sys/kernel/btf/vmlinux";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const SELF_STATUS: &str = "/proc/self/status";
/// Inode of the initial pid namespace, fixed in the kernel (PROC_PID_INIT_INO).
const INITIAL_PID_NS: &str = "pid:[4026531836]";
/// `bpf_loop` came with this release: nothing loads on an older one.
const OLDEST: (u32, u32) = (5, 17);
/// The oldest release we support. Between the two the programs may load.
const OLDEST_SUPPORTED: (u32, u32) = (6, 1);

/// The tracepoints of the programs, as the kernel's BTF names them.
const HOOKS: [&str; 4] = [
    "btf_trace_sched_process_fork",
    "btf_trace_sched_process_exec",
    "btf_trace_sched_process_exit",
    "bpf_iter_task",
];

/// Bits of a capability set, from `capability.h`.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Whether something the sensor needs is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckState {
    /// It is there.
    Present,
    /// It is not; the sensor cannot start.
    Missing,
    /// It is not, or cannot be told; the sensor starts without it.
    Unknown,
}

/// One thing the sensor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there.
    pub state: CheckState,
    /// What was found.
    pub found: String,
    /// How to get it, if it is not there.
    pub fix: Option<&'static str>,
}

/// What the machine allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Release of the running kernel, such as `6.12.0`.
    pub kernel_release: String,
    /// Where cgroup v2 is mounted, if it is.
    pub cgroup2_mount: Option<PathBuf>,
    /// Every check, in the order in which a start would fail by it.
    pub checks: Vec<Check>,
}

impl Capabilities {
    /// Whether [`crate::Sensor::start`] can be expected to work.
    #[must_use]
    pub fn can_observe(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.state != CheckState::Missing)
    }
}

/// Looks at what the machine allows. Changes nothing, loads nothing, and needs
/// no privilege.
#[must_use]
pub fn probe() -> Capabilities {
    let kernel_release = kernel_release();
    let cgroup2_mount = cgroup2_mount();
    let checks = vec![
        check_release(&kernel_release),
        check_capabilities(&fs::read_to_string(SELF_STATUS).unwrap_or_default()),
        check_pid_namespace(),
        check_lockdown(fs::read_to_string(LOCKDOWN)),
        check_btf(),
        check_hooks(&fs::read(BTF).unwrap_or_default()),
        check_cgroup2(cgroup2_mount.as_ref()),
    ];
    Capabilities {
        kernel_release,
        cgroup2_mount,
        checks,
    }
}

/// The first reason why a sensor cannot start here.
pub(crate) fn require() -> Result<(), SensorError> {
    let kernel = kernel_release();
    if release_numbers(&kernel).is_some_and(|numbers| numbers < OLDEST) {
        return Err(SensorError::KernelTooOld {
            kernel,
            feature: "bpf_loop",
            needed: "5.17",
        });
    }
    let status = fs::read_to_string(SELF_STATUS).map_err(|source| SensorError::ProcFile {
        path: SELF_STATUS,
        source,
    })?;
    let missing = missing_capabilities(&status);
    if !missing.is_empty() {
        return Err(SensorError::MissingCapability { missing });
    }
    if !in_initial_pid_namespace() {
        return Err(SensorError::PidNamespace);
    }
    if let Some(level) = lockdown_level(fs::read_to_string(LOCKDOWN))
        && level == "confidentiality"
    {
        return Err(SensorError::Lockdown { level });
    }
    let btf = fs::read(BTF).map_err(|source| SensorError::MissingBtf { path: BTF, source })?;
    match missing_hook(&btf) {
        Some(hook) => Err(SensorError::MissingHook { hook, kernel }),
        None => Ok(()),
    }
}

/// Release of the running kernel.
pub(crate) fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

fn check_release(release: &str) -> Check {
    let state = match release_numbers(release) {
        Some(numbers) if numbers >= OLDEST_SUPPORTED => CheckState::Present,
        Some(numbers) if numbers < OLDEST => CheckState::Missing,
        _ => CheckState::Unknown,
    };
    let fix = "use a newer kernel; older ones are not supported, and before 5.17 nothing loads";
    check("kernel 6.1 or later", state, release, fix)
}

fn check_capabilities(status: &str) -> Check {
    let missing = missing_capabilities(status);
    let (state, found) = if missing.is_empty() {
        (CheckState::Present, "present".to_owned())
    } else {
        let found = format!("missing {}", missing.join(" and "));
        (CheckState::Missing, found)
    };
    let fix = "run as root, or grant cap_bpf,cap_perfmon,cap_dac_read_search,cap_sys_ptrace";
    check("CAP_BPF and CAP_PERFMON", state, &found, fix)
}

fn check_pid_namespace() -> Check {
    let (state, found) = if in_initial_pid_namespace() {
        (CheckState::Present, "initial")
    } else {
        (CheckState::Missing, "not the initial one")
    };
    let fix = "in a container set hostPID or --pid=host";
    check("initial pid namespace", state, found, fix)
}

fn check_lockdown(content: io::Result<String>) -> Check {
    let (state, found) = match lockdown_level(content) {
        None => (
            CheckState::Unknown,
            "cannot be told (securityfs is not mounted, or no lockdown in this kernel)".to_owned(),
        ),
        Some(level) if level == "confidentiality" => (CheckState::Missing, level),
        Some(level) => (CheckState::Present, level),
    };
    let fix = "boot with lockdown=integrity or less";
    check("lockdown below confidentiality", state, &found, fix)
}

fn check_btf() -> Check {
    let (state, found) = match fs::metadata(BTF) {
        Ok(metadata) => (CheckState::Present, format!("{} bytes", metadata.len())),
        Err(error) => (CheckState::Missing, error.to_string()),
    };
    let fix = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y";
    check("BTF at /sys/kernel/btf/vmlinux", state, &found, fix)
}

fn check_hooks(btf: &[u8]) -> Check {
    let (state, found) = match missing_hook(btf) {
        None => (CheckState::Present, "all".to_owned()),
        Some(hook) => (CheckState::Missing, format!("no {hook}")),
    };
    let fix = "use Linux 6.1 or later with tracepoints";
    check("process tracepoints", state, &found, fix)
}

fn check_cgroup2(mount: Option<&PathBuf>) -> Check {
    let (state, found) = match mount {
        Some(path) => (CheckState::Present, path.display().to_string()),
        None => (CheckState::Unknown, "not mounted".to_owned()),
    };
    let fix = "mount -t cgroup2 none /sys/fs/cgroup/unified; without it no cgroup can be a scope";
    check("cgroup v2", state, &found, fix)
}

fn check(name: &'static str, state: CheckState, found: &str, fix: &'static str) -> Check {
    Check {
        name,
        state,
        found: found.to_owned(),
        fix: (state != CheckState::Present).then_some(fix),
    }
}

fn release_numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

/// From the line `CapEff:` of `/proc/self/status`; all are missing without it.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|(bit, _)| !has(*bit))
        .map(|(_, name)| name)
        .collect()
}

fn in_initial_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL_PID_NS)
}

/// The word in brackets of `none [integrity] confidentiality`.
fn lockdown_level(content: io::Result<String>) -> Option<String> {
    let content = content.ok()?;
    let (_, rest) = content.split_once('[')?;
    let (level, _) = rest.split_once(']')?;
    Some(level.to_owned())
}

/// The first hook that the string section of the BTF does not name.
fn missing_hook(btf: &[u8]) -> Option<&'static str> {
    let mut missing: Vec<&'static str> = HOOKS.to_vec();
    for name in btf.split(|byte| *byte == 0) {
        missing.retain(|hook| hook.as_bytes() != name);
        if missing.is_empty() {
            break;
        }
    }
    missing
        .first()
        .map(|hook| hook.strip_prefix("btf_trace_").unwrap_or(hook))
}

fn cgroup2_mount() -> Option<PathBuf> {
    find_cgroup2(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// The mount point is the fifth field; the file system type follows ` - `.
fn find_cgroup2(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let path = mount.split(' ').nth(4)?;
        (system.split(' ').next() == Some("cgroup2")).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let missing = |hex: &str| missing_capabilities(&format!("Name:\tx\nCapEff:\t{hex}\n"));
        assert_eq!(missing("000001ffffffffff"), [""; 0]);
        assert_eq!(missing("000000c000000000"), [""; 0]);
        assert_eq!(missing("0000000000200000"), [""; 0]);
        assert_eq!(missing("0000008000000000"), ["CAP_PERFMON"]);
        assert_eq!(missing("0000000000000000"), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing_capabilities("garbage").len(), 2);
    }

    #[test]
    fn release_is_compared_by_number() {
        assert_eq!(release_numbers("6.18.44-fc"), Some((6, 18)));
        assert_eq!(release_numbers("x"), None);
        assert_eq!(check_release("5.4.0").state, CheckState::Missing);
        assert_eq!(check_release("5.16.20").state, CheckState::Missing);
        // It may start there, but we do not support it.
        assert_eq!(check_release("5.17.0").state, CheckState::Unknown);
        assert_eq!(check_release("6.0.19").state, CheckState::Unknown);
        assert_eq!(check_release("6.1.0-28-amd64").state, CheckState::Present);
        assert_eq!(check_release("10.1").state, CheckState::Present);
    }

    #[test]
    fn lockdown_is_the_word_in_brackets() {
        let state = |text: &str| check_lockdown(Ok(text.to_owned())).state;
        let integrity = "none [integrity] confidentiality\n";
        assert_eq!(state(integrity), CheckState::Present);
        let confidentiality = "none integrity [confidentiality]\n";
        assert_eq!(state(confidentiality), CheckState::Missing);
        assert_eq!(state("nonsense"), CheckState::Unknown);
        let absent = check_lockdown(Err(io::ErrorKind::NotFound.into()));
        assert_eq!(absent.state, CheckState::Unknown);
        assert!(absent.fix.is_some());
    }

    #[test]
    fn a_missing_hook_is_named_without_prefix() {
        let btf = b"\0btf_trace_sched_process_fork\0btf_trace_sched_process_exit\0bpf_iter_task\0";
        assert_eq!(missing_hook(btf), Some("sched_process_exec"));
    }

    #[test]
    fn cgroup2_is_found_in_a_hybrid_hierarchy() {
        let mountinfo = "30 20 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                         31 20 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 none rw\n";
        let found = find_cgroup2(mountinfo);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_cgroup2("garbage\n"), None);
    }
}
