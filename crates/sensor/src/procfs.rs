//! What `/proc` knows about a process that was already running.
//!
//! `/proc` cannot name a process as the kernel does: its start time is in clock
//! ticks. So it only adds the image to a key that is known, and only if the
//! start agrees; otherwise the number was reused.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::PathBuf,
};

use inwarden_types::Image;

use crate::path;

/// Looks images up by TGID and `start_boottime`.
pub(crate) trait ProcessFiles: Send {
    /// The image of that process and its parent's TGID, if it still lives.
    fn look_up(&self, tgid: u32, start_ns: u64) -> Option<(Image, u32)>;
}

/// The real `/proc`.
#[derive(Debug)]
pub(crate) struct ProcFs {
    root: PathBuf,
    /// A start time in ticks may lie up to this much beside the exact one.
    tick_ns: u64,
    max_argv_bytes: u64,
}

impl ProcFs {
    pub(crate) fn new(max_argv_bytes: u32) -> Self {
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        Self {
            root: PathBuf::from("/proc"),
            tick_ns: 1_000_000_000 / ticks,
            max_argv_bytes: max_argv_bytes.into(),
        }
    }

    fn read_capped(&self, tgid: u32, file: &str, cap: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.root.join(tgid.to_string()).join(file))?
            .take(cap)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn link(&self, tgid: u32, file: &str) -> String {
        fs::read_link(self.root.join(tgid.to_string()).join(file))
            .map(|target| target.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

impl ProcessFiles for ProcFs {
    fn look_up(&self, tgid: u32, start_ns: u64) -> Option<(Image, u32)> {
        let stat = parse_stat(&self.read_capped(tgid, "stat", 4096).ok()?)?;
        if stat.start_ticks.abs_diff(start_ns / self.tick_ns) > 1 {
            return None;
        }
        let read_cap = self.max_argv_bytes + 1;
        let mut cmdline = self
            .read_capped(tgid, "cmdline", read_cap)
            .unwrap_or_default();
        let true_bytes = cmdline.len() as u64;
        cmdline.truncate(usize::try_from(self.max_argv_bytes).unwrap_or(usize::MAX));
        let image = Image {
            exe: self.link(tgid, "exe"),
            comm: stat.comm,
            argv: path::argv(&cmdline, true_bytes),
            cwd: self.link(tgid, "cwd"),
            exec_at: None,
        };
        Some((image, stat.parent_tgid))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: String,
    parent_tgid: u32,
    start_ticks: u64,
}

/// Parses `/proc/PID/stat`; the name may contain spaces and parentheses.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let comm = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let rest = str::from_utf8(stat.get(close + 1..)?).ok()?;
    // state, ppid, …; the start is field 22 of the whole, so 20 of the rest.
    let mut fields = rest.split_ascii_whitespace();
    Some(Stat {
        comm,
        parent_tgid: fields.nth(1)?.parse().ok()?,
        start_ticks: fields.nth(17)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_hostile_name_is_parsed() {
        let line = b"7 (a) S 99 (b) R 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.comm, "a) S 99 (b");
        assert_eq!(stat.parent_tgid, 3);
        assert_eq!(stat.start_ticks, 12_345);
        for end in 0..line.len() {
            let _ = parse_stat(&line[..end]);
        }
        assert_eq!(parse_stat(b")("), None);
    }

    #[test]
    fn our_own_image_is_found_and_a_reused_number_is_not() {
        let files = ProcFs::new(16_384);
        let own = std::process::id();
        let stat = parse_stat(&files.read_capped(own, "stat", 4096).unwrap()).unwrap();
        let start_ns = stat.start_ticks * files.tick_ns;
        let (image, parent) = files.look_up(own, start_ns).unwrap();
        assert_eq!(
            PathBuf::from(image.exe),
            std::env::current_exe().unwrap().canonicalize().unwrap()
        );
        assert_eq!(parent, std::os::unix::process::parent_id());
        assert_eq!(files.look_up(own, start_ns + 5_000_000_000), None);
    }
}
