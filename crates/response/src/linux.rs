//! The real [`Host`]: pidfds (Linux 5.3) and `/proc`.
//!
//! Signalling a process of another user needs `CAP_KILL`. Process and start ids
//! are compared with those of kernel events, so we must run in the initial pid
//! and time namespaces; elsewhere nothing matches and nothing is touched.
//!
//! Sources: proc_pid_stat(5), pidfd_open(2), cgroups(7).

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::Instant,
};

use inwarden_types::{BootId, CgroupId, Tgid};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};

use crate::{
    ResponseError,
    host::{Failure, Host, Listing, Signal, StartTicks, Status},
};

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;
/// `AT_CLKTCK`, getauxval(3).
const AT_CLKTCK: u64 = 17;
/// More than any file of `/proc` that we read is long.
const MAX_PROC_FILE_BYTES: u64 = 1 << 20;

pub(crate) struct Linux {
    own_tgid: Tgid,
    clock_ticks_per_second: u64,
    cgroup2: Option<Cgroup2Mount>,
}

/// Where the cgroup v2 hierarchy is seen; on a hybrid host beside the v1 ones.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cgroup2Mount {
    /// The cgroup at the top of the mount, as `/proc/PID/cgroup` names it.
    root: String,
    mount_point: PathBuf,
}

impl Linux {
    /// # Errors
    /// Any [`ResponseError`] but `WrongBoot`.
    pub(crate) fn new() -> Result<Self, ResponseError> {
        let own = rustix::process::getpid();
        pidfd_open(own, PidfdFlags::empty()).map_err(|errno| ResponseError::NoPidfd {
            source: errno.into(),
        })?;
        let auxv = read(Path::new("/proc/self/auxv"))?;
        let mountinfo = read(Path::new("/proc/self/mountinfo"))?;
        Ok(Self {
            own_tgid: Tgid(own.as_raw_pid().unsigned_abs()),
            clock_ticks_per_second: clock_ticks(&auxv).ok_or_else(|| ResponseError::Malformed {
                path: "/proc/self/auxv".into(),
                expected: "AT_CLKTCK",
            })?,
            cgroup2: cgroup2_mount(&String::from_utf8_lossy(&mountinfo)),
        })
    }
}

/// The boot that runs now.
pub(crate) fn running_boot() -> Result<BootId, ResponseError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = read(path)?;
    String::from_utf8_lossy(&text)
        .trim()
        .parse()
        .map_err(|_| ResponseError::Malformed {
            path: path.to_owned(),
            expected: "a boot id",
        })
}

impl Host for Linux {
    type Handle = OwnedFd;

    fn own_tgid(&self) -> Tgid {
        self.own_tgid
    }

    fn clock_ticks_per_second(&self) -> u64 {
        self.clock_ticks_per_second
    }

    fn open(&self, tgid: Tgid) -> Result<OwnedFd, Failure> {
        let raw = i32::try_from(tgid.0).map_err(|_| Failure::Gone)?;
        let pid = Pid::from_raw(raw).ok_or(Failure::Gone)?;
        pidfd_open(pid, PidfdFlags::empty()).map_err(failure)
    }

    fn status(&self, tgid: Tgid) -> Result<Status, Failure> {
        let text = read_bounded(Path::new(&format!("/proc/{tgid}/stat"))).map_err(unread)?;
        parse_stat(&text)
            .filter(|status| status.tgid == tgid)
            .ok_or(Failure::Unavailable)
    }

    fn processes(&self) -> Listing {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Listing::default();
        };
        let mut listing = Listing {
            processes: Vec::new(),
            complete: true,
        };
        for entry in entries {
            let Ok(entry) = entry else {
                listing.complete = false;
                continue;
            };
            let name = entry.file_name();
            let Some(tgid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match self.status(Tgid(tgid)) {
                Ok(status) => listing.processes.push(status),
                Err(Failure::Gone) => {}
                Err(Failure::NotPermitted | Failure::Unavailable) => listing.complete = false,
            }
        }
        listing
    }

    fn cgroup(&self, tgid: Tgid) -> Result<Option<CgroupId>, Failure> {
        let Some(mount) = &self.cgroup2 else {
            return Ok(None);
        };
        let text = read_bounded(Path::new(&format!("/proc/{tgid}/cgroup"))).map_err(unread)?;
        let Some(directory) = cgroup_directory(mount, &String::from_utf8_lossy(&text)) else {
            return Ok(None);
        };
        let metadata = fs::metadata(directory).map_err(unread)?;
        Ok(Some(CgroupId(metadata.ino())))
    }

    fn signal(&self, handle: &OwnedFd, signal: Signal) -> Result<(), Failure> {
        let signal = match signal {
            Signal::Stop => rustix::process::Signal::STOP,
            Signal::Continue => rustix::process::Signal::CONT,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        pidfd_send_signal(handle, signal).map_err(failure)
    }

    fn ended(&self, handle: &OwnedFd, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = [PollFd::new(handle, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

fn failure(errno: Errno) -> Failure {
    match errno {
        // ENOENT also if the number is now that of a thread of another process.
        Errno::SRCH | Errno::NOENT => Failure::Gone,
        Errno::PERM | Errno::ACCESS => Failure::NotPermitted,
        _ => Failure::Unavailable,
    }
}

/// A file of a process says that the process is gone by ENOENT when it is opened
/// and by ESRCH when it is read; anything else says nothing about the process.
fn unread(error: io::Error) -> Failure {
    match Errno::from_io_error(&error) {
        Some(errno) => failure(errno),
        None => Failure::Unavailable,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ResponseError> {
    read_bounded(path).map_err(|source| ResponseError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_PROC_FILE_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads `tgid (comm) state ppid …`; `comm` can hold anything, brackets and
/// newlines too, so the fields are counted from the last bracket.
fn parse_stat(text: &[u8]) -> Option<Status> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let before = std::str::from_utf8(text.get(..open)?).ok()?;
    let after = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // Field 3, the state, comes first.
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Status {
        tgid: Tgid(before.trim().parse().ok()?),
        parent: Tgid(u32::try_from(number(4)?).ok()?),
        start: StartTicks(number(22)?),
        kernel_thread: number(9)? & PF_KTHREAD != 0,
    })
}

/// The auxiliary vector is pairs of machine words, getauxval(3).
fn clock_ticks(auxv: &[u8]) -> Option<u64> {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| Some(usize::from_ne_bytes(bytes.try_into().ok()?) as u64);
    auxv.chunks_exact(2 * WORD)
        .find(|pair| word(&pair[..WORD]) == Some(AT_CLKTCK))
        .and_then(|pair| word(&pair[WORD..]))
        .filter(|ticks| (1..=1_000_000_000).contains(ticks))
}

/// Fields as in proc_pid_mountinfo(5): `id parent dev root mount-point options
/// [tags] - type source options`.
fn cgroup2_mount(mountinfo: &str) -> Option<Cgroup2Mount> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        if right.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = left.split(' ').skip(3);
        Some(Cgroup2Mount {
            root: unescape(fields.next()?),
            mount_point: unescape(fields.next()?).into(),
        })
    })
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// The directory of the v2 cgroup that `/proc/PID/cgroup` names; `None` if it
/// lies above our view.
fn cgroup_directory(mount: &Cgroup2Mount, text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = if mount.root == "/" {
        path
    } else {
        path.strip_prefix(mount.root.as_str())?
    };
    if !(below.is_empty() || below.starts_with('/')) || below.split('/').any(|part| part == "..") {
        return None;
    }
    Some(mount.mount_point.join(below.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_from_the_last_bracket() {
        let text =
            b"42 (a) S 1 (\n) R 7 42 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 109472 3133440 384";
        let status = parse_stat(text).unwrap();
        assert_eq!((status.tgid, status.parent), (Tgid(42), Tgid(7)));
        assert_eq!(status.start, StartTicks(109_472));
        assert!(!status.kernel_thread);
    }

    #[test]
    fn no_stat_text_panics() {
        let text = b"42 (sh) R 7 42 7 0 -1 2129984 1 0 0 0 0 0 0 0 20 0 1 0 109472 3133440 384";
        assert!(parse_stat(text).unwrap().kernel_thread);
        for cut in 0..text.len() {
            parse_stat(&text[..cut]);
            parse_stat(&text[cut..]);
        }
        assert!(parse_stat(b")(").is_none());
    }

    #[test]
    fn ourselves_as_proc_shows_us() {
        let linux = Linux::new().unwrap();
        assert_eq!(linux.own_tgid(), Tgid(std::process::id()));
        let own = linux.status(linux.own_tgid()).unwrap();
        assert!(!own.kernel_thread);
        let listing = linux.processes();
        assert!(listing.complete && listing.processes.contains(&own));
        assert!(linux.clock_ticks_per_second() >= 1);
        assert!(running_boot().is_ok());
    }

    #[test]
    fn only_enoent_and_esrch_say_that_a_process_is_gone() {
        for (errno, expected) in [
            (Errno::NOENT, Failure::Gone),
            (Errno::SRCH, Failure::Gone),
            (Errno::ACCESS, Failure::NotPermitted),
            (Errno::PERM, Failure::NotPermitted),
            (Errno::MFILE, Failure::Unavailable),
            (Errno::NFILE, Failure::Unavailable),
            (Errno::NOMEM, Failure::Unavailable),
            (Errno::IO, Failure::Unavailable),
        ] {
            assert_eq!(unread(errno.into()), expected, "{errno}");
        }
        let nobody = Linux::new().unwrap().status(Tgid(u32::MAX));
        assert_eq!(nobody, Err(Failure::Gone));
    }

    #[test]
    fn a_hybrid_hosts_v2_mount_is_found() {
        let text = "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:5 - cgroup2 cgroup2 rw\n";
        let mount = cgroup2_mount(text).unwrap();
        assert_eq!(mount.mount_point, Path::new("/sys/fs/cgroup/uni fied"));
        assert_eq!(mount.root, "/");
        assert!(cgroup2_mount("garbage\n - cgroup2\n").is_none());
    }

    #[test]
    fn a_cgroup_above_our_view_has_no_directory() {
        let mount = |root: &str| Cgroup2Mount {
            root: root.into(),
            mount_point: "/cg".into(),
        };
        let check = |root: &str, path: &str, expected: Option<&str>| {
            let text = format!("8:pids:/x\n0::{path}\n");
            assert_eq!(
                cgroup_directory(&mount(root), &text),
                expected.map(PathBuf::from),
                "{root} {path}"
            );
        };
        check("/", "/", Some("/cg/"));
        check("/", "/a/b", Some("/cg/a/b"));
        check("/a", "/a/b", Some("/cg/b"));
        check("/a", "/a", Some("/cg/"));
        check("/a", "/ab", None);
        check("/", "/../x", None);
        assert!(cgroup_directory(&mount("/"), "1:cpu:/\n").is_none());
    }
}
