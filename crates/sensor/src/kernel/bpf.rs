//! The real kernel, through aya.

use std::{
    error::Error,
    io::{self, Read as _},
    os::fd::OwnedFd,
    time::Duration,
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, Iter, ProgramError, tp_btf::BtfTracePointLinkId},
};
use inwarden_types::BootTime;
use nix::sys::signal::SigSet;
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};

use super::Kernel;
use crate::{
    SensorConfig, SensorError, clock,
    counters::{self, AllCounters, ProgramCounters, RawCounters},
    probe::kernel_release,
    trim,
};

/// The compiled programs, as committed beside their sources.
pub(crate) const OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/process.bpf.o"));

/// Program and hook of the two that every kernel takes.
const PROGRAMS: [(&str, &str); 2] = [
    ("inwarden_fork", "sched_process_fork"),
    ("inwarden_exec", "sched_process_exec"),
];
/// The exit program, first for Linux 6.16 and later, then for older kernels.
const EXIT_PROGRAMS: [&str; 2] = ["inwarden_exit", "inwarden_exit_before_6_16"];
/// More seeds than this (half a million processes) are not read.
const MAX_SEED_BYTES: u64 = 64 << 20;
/// A load interrupted by a signal is tried this often.
const LOAD_ATTEMPTS: u32 = 20;
/// Of what loader and verifier say, kept in errors.
const MESSAGE_HEAD_CHARS: usize = 300;
const MESSAGE_TAIL_CHARS: usize = 1700;

/// Loaded programs; dropping it detaches them.
pub(crate) struct Bpf {
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, RawCounters>,
    epoll: OwnedFd,
    links: Vec<(&'static str, BtfTracePointLinkId)>,
    ebpf: Ebpf,
}

impl Bpf {
    /// Loads the programs, writes their settings and attaches them.
    ///
    /// `own_tgid`: events of this process are left out; 0 leaves out none.
    pub(crate) fn attach(config: &SensorConfig, own_tgid: u32) -> Result<Self, SensorError> {
        let btf = Btf::from_sys_fs().map_err(|error| rejected("kernel BTF", &error))?;
        let signals = BlockedSignals::new();
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .map_max_entries("control", config.ring_bytes)
            .load(OBJECT)
            .map_err(|error| load_error(&error))?;
        write_settings(&mut ebpf, config, own_tgid)?;
        for (program, hook) in PROGRAMS {
            load(&mut ebpf, program, hook, &btf)?;
        }
        let exit = load_exit(&mut ebpf, &btf)?;
        let seed: &mut Iter = program(&mut ebpf, "inwarden_seed")?;
        retry_interrupted(|| seed.load("task", &btf))
            .map_err(|error| program_error("inwarden_seed", &error))?;
        drop(signals);
        drop(btf);
        trim::return_free_memory();

        let mut bpf = Self {
            ring: take_map(&mut ebpf, "control")?,
            counters: take_map(&mut ebpf, "counters")?,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(wait_error)?,
            links: Vec::new(),
            ebpf,
        };
        // Edge-triggered: what lies in the ring does not wake, only a program does.
        let interest = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(
            &bpf.epoll,
            &bpf.ring,
            epoll::EventData::new_u64(0),
            interest,
        )
        .map_err(wait_error)?;
        // The end before the birth: no process is seen that never ends.
        for name in [exit, PROGRAMS[1].0, PROGRAMS[0].0] {
            let program: &mut BtfTracePoint = program(&mut bpf.ebpf, name)?;
            let link = program
                .attach()
                .map_err(|error| program_error(name, &error))?;
            bpf.links.push((name, link));
        }
        Ok(bpf)
    }
}

impl Kernel for Bpf {
    fn seeds(&mut self) -> Result<Vec<u8>, SensorError> {
        let name = "inwarden_seed";
        let error = |error: &ProgramError| program_error(name, error);
        let seed: &mut Iter = program(&mut self.ebpf, name)?;
        let link_id = seed.attach().map_err(|e| error(&e))?;
        let link = seed.take_link(link_id).map_err(|e| error(&e))?;
        let file = link.into_file().map_err(|e| rejected(name, &e))?;
        let mut seeds = Vec::new();
        file.take(MAX_SEED_BYTES)
            .read_to_end(&mut seeds)
            .map_err(|source| SensorError::Refused {
                operation: "list the running processes".to_owned(),
                source,
            })?;
        Ok(seeds)
    }

    fn drain(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) -> usize {
        for count in 0..limit {
            match self.ring.next() {
                Some(record) => each(&record),
                None => return count,
            }
        }
        limit
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), SensorError> {
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        let mut ready = Vec::with_capacity(1);
        let buffer = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(wait_error(error)),
        }
    }

    fn counters(&self) -> Result<AllCounters, SensorError> {
        let mut all = counters::PROGRAMS.map(ProgramCounters::zero);
        for (index, program) in (0..).zip(&mut all) {
            let error = |e| map_error("counters", &e);
            for raw in self.counters.get(&index, 0).map_err(error)?.iter() {
                program.add(raw);
            }
        }
        Ok(all)
    }

    fn now(&self) -> BootTime {
        clock::boot_time_now()
    }

    fn detach(&mut self) -> Result<(), SensorError> {
        // The birth before the end, so that the last births seen have their ends.
        while let Some((name, link)) = self.links.pop() {
            let program: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            program
                .detach(link)
                .map_err(|error| program_error(name, &error))?;
        }
        Ok(())
    }
}

fn write_settings(
    ebpf: &mut Ebpf,
    config: &SensorConfig,
    own_tgid: u32,
) -> Result<(), SensorError> {
    let filter_cgroups = u32::from(config.cgroups.is_some());
    let wakeup_bytes = config.ring_bytes / 4;
    let values = [
        own_tgid,
        config.max_argv_bytes,
        filter_cgroups,
        wakeup_bytes,
    ];
    // The maps stay with the programs, which are not loaded yet.
    let mut settings: Array<&mut MapData, [u32; 4]> = borrow_map(ebpf, "settings")?;
    settings
        .set(0, values, 0)
        .map_err(|error| map_error("settings", &error))?;
    let mut cgroups: HashMap<&mut MapData, u64, u8> = borrow_map(ebpf, "cgroups")?;
    for cgroup in config.cgroups.iter().flatten() {
        cgroups
            .insert(cgroup.0, 1, 0)
            .map_err(|error| map_error("cgroups", &error))?;
    }
    Ok(())
}

fn load(ebpf: &mut Ebpf, name: &str, hook: &str, btf: &Btf) -> Result<(), SensorError> {
    let tracepoint: &mut BtfTracePoint = program(ebpf, name)?;
    retry_interrupted(|| tracepoint.load(hook, btf)).map_err(|error| program_error(name, &error))
}

/// This thread without signals, until dropped.
///
/// The verifier gives up with EAGAIN when a signal is pending, and a process
/// whose children end all the time always has one: on a loaded machine no
/// number of attempts is enough. Blocked signals are not pending for it; they
/// go to another thread, or wait.
struct BlockedSignals(Option<SigSet>);

impl BlockedSignals {
    fn new() -> Self {
        let before = SigSet::thread_get_mask().and_then(|before| {
            SigSet::all().thread_block()?;
            Ok(before)
        });
        // Without it a load may be interrupted, and is then tried again.
        Self(
            before
                .inspect_err(|error| tracing::warn!(%error, "signals stay open"))
                .ok(),
        )
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && let Err(error) = before.thread_set_mask()
        {
            tracing::warn!(%error, "the signal mask cannot be restored");
        }
    }
}

/// The verifier gives up with EAGAIN when a signal is pending, SIGSTOP for one,
/// which cannot be blocked; libbpf tries again as well.
fn retry_interrupted<T, E: Error + 'static>(
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 1..LOAD_ATTEMPTS {
        match attempt() {
            Err(error) if cause_code(&error) == Some(Errno::AGAIN.raw_os_error()) => {
                tracing::debug!("the verifier was interrupted by a signal");
            }
            settled => return settled,
        }
    }
    attempt()
}

/// Loads the exit program that this kernel's tracepoint fits.
fn load_exit(ebpf: &mut Ebpf, btf: &Btf) -> Result<&'static str, SensorError> {
    let [newer, older] = EXIT_PROGRAMS;
    let hook = "sched_process_exit";
    match load(ebpf, newer, hook, btf) {
        Ok(()) => Ok(newer),
        // The verifier refuses an argument that the tracepoint does not have.
        Err(SensorError::Rejected { .. }) => {
            tracing::debug!(program = older, "using the exit program of older kernels");
            load(ebpf, older, hook, btf).map(|()| older)
        }
        Err(other) => Err(other),
    }
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, SensorError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| missing_part(name))?
        .try_into()
        .map_err(|error| rejected(name, &error))
}

fn take_map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, SensorError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    ebpf.take_map(name)
        .ok_or_else(|| missing_part(name))?
        .try_into()
        .map_err(|error| rejected(name, &error))
}

fn borrow_map<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<T, SensorError>
where
    T: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
{
    ebpf.map_mut(name)
        .ok_or_else(|| missing_part(name))?
        .try_into()
        .map_err(|error| rejected(name, &error))
}

fn missing_part(name: &str) -> SensorError {
    SensorError::Rejected {
        part: name.to_owned(),
        kernel: kernel_release(),
        message: "it is not in the object".to_owned(),
    }
}

fn rejected(part: &str, error: &(dyn Error + 'static)) -> SensorError {
    SensorError::Rejected {
        part: part.to_owned(),
        kernel: kernel_release(),
        message: message(error),
    }
}

fn map_error(map: &'static str, error: &(dyn Error + 'static)) -> SensorError {
    SensorError::Map {
        map,
        message: message(error),
    }
}

fn wait_error(error: Errno) -> SensorError {
    SensorError::Wait {
        source: error.into(),
    }
}

/// The load of one program failed: by permission, or by the verifier.
fn program_error(name: &str, error: &(dyn Error + 'static)) -> SensorError {
    refusal(error).map_or_else(
        || rejected(name, error),
        |source| SensorError::Refused {
            operation: format!("load {name}"),
            source,
        },
    )
}

fn load_error(error: &EbpfError) -> SensorError {
    refusal(error).map_or_else(
        || rejected("object", error),
        |source| SensorError::Refused {
            operation: "create the maps".to_owned(),
            source,
        },
    )
}

/// The permission error in the chain of causes, if there is one.
fn refusal(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let code = cause_code(error)?;
    let [not_permitted, access] = [Errno::PERM, Errno::ACCESS].map(Errno::raw_os_error);
    // EACCES is also the verifier's answer to a bad program; it then has a log.
    let by_verifier = code == access && error.to_string().contains("processed");
    let refused = (code == not_permitted || code == access) && !by_verifier;
    refused.then(|| io::Error::from_raw_os_error(code))
}

/// What the system call said, from the chain of causes.
fn cause_code(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<io::Error>() {
            return found.raw_os_error();
        }
        next = current.source();
    }
    None
}

/// The chain of causes in one line; if it is long its beginning, which names
/// the error, and its end, which holds the verifier's reason.
fn message(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    let length = text.chars().count();
    if length <= MESSAGE_HEAD_CHARS + MESSAGE_TAIL_CHARS {
        return text;
    }
    let head: String = text.chars().take(MESSAGE_HEAD_CHARS).collect();
    let tail: String = text.chars().skip(length - MESSAGE_TAIL_CHARS).collect();
    format!("{head} … {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_interrupted_by_signals_is_tried_again_but_not_forever() {
        let attempts = |failures: u32, errno: Errno| {
            let mut made = 0;
            let result = retry_interrupted(|| {
                made += 1;
                if made <= failures {
                    Err(io::Error::from(errno))
                } else {
                    Ok(())
                }
            });
            (made, result.is_ok())
        };
        assert_eq!(attempts(0, Errno::AGAIN), (1, true));
        assert_eq!(attempts(3, Errno::AGAIN), (4, true));
        assert_eq!(attempts(99, Errno::AGAIN), (LOAD_ATTEMPTS, false));
        assert_eq!(attempts(99, Errno::PERM), (1, false));
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let text = format!("BPF_PROG_LOAD{}reason", "x".repeat(9000));
        let short = message(&io::Error::other(text));
        assert!(short.starts_with("BPF_PROG_LOAD") && short.ends_with("reason"));
        assert!(short.chars().count() < 2100);
    }

    #[test]
    fn only_a_refusal_without_verifier_log_is_one() {
        let source = |errno: Errno| io::Error::from(errno);
        assert!(refusal(&source(Errno::PERM)).is_some());
        assert!(refusal(&source(Errno::ACCESS)).is_some());
        assert!(refusal(&source(Errno::INVAL)).is_none());
    }
}
