//! The records of the eBPF programs: mirrors `ebpf/inwarden_event.h`.
//!
//! Decoding copies field by field out of a byte slice and checks every length;
//! nothing is ever cast. The layout is asserted below at compile time, and a
//! test compares it with the BTF of the object that is loaded.

use std::mem::{offset_of, size_of};

/// The version of the format this file mirrors.
pub(crate) const VERSION: u8 = 1;
/// Most bytes of arguments in one record.
pub(crate) const MAX_ARGV_BYTES: u32 = 16_384;
/// Entries of the map `cgroups`.
pub(crate) const MAX_CGROUPS: usize = 4096;
/// No record is longer.
const MAX_RECORD_BYTES: usize = 96 + 32 + 2 * (4096 + 256) + 16_384;

/// What a record is about, in the order in which simultaneous events happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Fork = 0,
    Exec = 1,
    Exit = 2,
    Seed = 3,
}

// The two flags about arguments follow from the lengths, so they are not read here.
pub(crate) const EXE_TRUNCATED: u16 = 0x0004;
pub(crate) const EXE_DETACHED: u16 = 0x0008;
pub(crate) const CWD_TRUNCATED: u16 = 0x0010;
pub(crate) const CWD_DETACHED: u16 = 0x0020;

/// `struct inwarden_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) flags: u16,
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) boot_time_ns: u64,
    pub(crate) leader_start_ns: u64,
    pub(crate) cgroup_id: u64,
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
    pub(crate) parent_tgid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) cpu: u32,
    pub(crate) mount_ns: u32,
    pub(crate) verdict: u32,
    pub(crate) parent_start_ns: u64,
    pub(crate) comm: [u8; 16],
}

/// `struct inwarden_fork`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Fork {
    pub(crate) pid_ns: u32,
    pub(crate) net_ns: u32,
    pub(crate) forker_start_ns: u64,
    pub(crate) forker_tgid: u32,
    pub(crate) reserved: u32,
}

/// `struct inwarden_exec`; the data follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Exec {
    pub(crate) pid_ns: u32,
    pub(crate) net_ns: u32,
    pub(crate) argv_true_bytes: u64,
    pub(crate) old_tid: u32,
    pub(crate) exe_bytes: u32,
    pub(crate) cwd_bytes: u32,
    pub(crate) argv_bytes: u32,
}

/// `struct inwarden_exit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Exit {
    pub(crate) pid_ns: u32,
    pub(crate) net_ns: u32,
    pub(crate) status: u32,
    pub(crate) reserved: u32,
}

/// `struct inwarden_seed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Seed {
    pub(crate) pid_ns: u32,
    pub(crate) net_ns: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 96);
    assert!(offset_of!(Header, flags) == 2);
    assert!(offset_of!(Header, length) == 4);
    assert!(offset_of!(Header, sequence) == 8);
    assert!(offset_of!(Header, boot_time_ns) == 16);
    assert!(offset_of!(Header, leader_start_ns) == 24);
    assert!(offset_of!(Header, cgroup_id) == 32);
    assert!(offset_of!(Header, tgid) == 40);
    assert!(offset_of!(Header, parent_tgid) == 48);
    assert!(offset_of!(Header, mount_ns) == 64);
    assert!(offset_of!(Header, parent_start_ns) == 72);
    assert!(offset_of!(Header, comm) == 80);
    assert!(size_of::<Fork>() == 24);
    assert!(size_of::<Exec>() == 32);
    assert!(size_of::<Exit>() == 16);
    assert!(size_of::<Seed>() == 8);
};

/// One decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) header: Header,
    pub(crate) body: Body,
}

/// The part that depends on the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Fork(Fork),
    Exec {
        fixed: Exec,
        /// Components, leaf first, a NUL after each.
        exe: Vec<u8>,
        /// Likewise.
        cwd: Vec<u8>,
        /// As in the process: a NUL after each argument.
        argv: Vec<u8>,
    },
    Exit(Exit),
    Seed(Seed),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// Shorter than its kind, or than its header says.
    Short,
    /// Longer than its header says, or than any record.
    Long,
    /// Another version of the format.
    Version(u8),
    /// No such kind.
    Kind(u8),
}

/// Takes fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (front, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*front)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_ne_bytes)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_ne_bytes)
    }

    fn section(&mut self, count: u32) -> Result<Vec<u8>, DecodeError> {
        let count = usize::try_from(count).map_err(|_| DecodeError::Short)?;
        self.bytes(count).map(<[u8]>::to_vec)
    }
}

/// Decodes one record.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (record, rest) = decode_first(bytes)?;
    if rest.is_empty() {
        Ok(record)
    } else {
        Err(DecodeError::Long)
    }
}

/// Decodes the record at the front of `bytes` and returns what follows it.
pub(crate) fn decode_first(bytes: &[u8]) -> Result<(Record, &[u8]), DecodeError> {
    let header = decode_header(&mut Fields(bytes))?;
    let length = usize::try_from(header.length).map_err(|_| DecodeError::Long)?;
    if length > MAX_RECORD_BYTES {
        return Err(DecodeError::Long);
    }
    let (record, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Short)?;
    let mut fields = Fields(record);
    fields.bytes(size_of::<Header>())?;
    let body = decode_body(&mut fields, header.kind)?;
    if !fields.0.is_empty() {
        return Err(DecodeError::Long);
    }
    Ok((Record { header, body }, rest))
}

fn decode_header(fields: &mut Fields<'_>) -> Result<Header, DecodeError> {
    let version = fields.u8()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    Ok(Header {
        version,
        kind: fields.u8()?,
        flags: fields.u16()?,
        length: fields.u32()?,
        sequence: fields.u64()?,
        boot_time_ns: fields.u64()?,
        leader_start_ns: fields.u64()?,
        cgroup_id: fields.u64()?,
        tgid: fields.u32()?,
        tid: fields.u32()?,
        parent_tgid: fields.u32()?,
        uid: fields.u32()?,
        gid: fields.u32()?,
        cpu: fields.u32()?,
        mount_ns: fields.u32()?,
        verdict: fields.u32()?,
        parent_start_ns: fields.u64()?,
        comm: fields.array()?,
    })
}

fn decode_body(fields: &mut Fields<'_>, kind: u8) -> Result<Body, DecodeError> {
    match kind {
        k if k == Kind::Fork as u8 => Ok(Body::Fork(Fork {
            pid_ns: fields.u32()?,
            net_ns: fields.u32()?,
            forker_start_ns: fields.u64()?,
            forker_tgid: fields.u32()?,
            reserved: fields.u32()?,
        })),
        k if k == Kind::Exec as u8 => {
            let fixed = Exec {
                pid_ns: fields.u32()?,
                net_ns: fields.u32()?,
                argv_true_bytes: fields.u64()?,
                old_tid: fields.u32()?,
                exe_bytes: fields.u32()?,
                cwd_bytes: fields.u32()?,
                argv_bytes: fields.u32()?,
            };
            Ok(Body::Exec {
                fixed,
                exe: fields.section(fixed.exe_bytes)?,
                cwd: fields.section(fixed.cwd_bytes)?,
                argv: fields.section(fixed.argv_bytes)?,
            })
        }
        k if k == Kind::Exit as u8 => Ok(Body::Exit(Exit {
            pid_ns: fields.u32()?,
            net_ns: fields.u32()?,
            status: fields.u32()?,
            reserved: fields.u32()?,
        })),
        k if k == Kind::Seed as u8 => Ok(Body::Seed(Seed {
            pid_ns: fields.u32()?,
            net_ns: fields.u32()?,
        })),
        other => Err(DecodeError::Kind(other)),
    }
}

#[cfg(test)]
pub(crate) mod encode;
#[cfg(test)]
mod tests;
