//! Decoding on any bytes, and the layout against the object that is loaded.

use std::collections::BTreeMap;

use super::{encode, *};
use crate::{
    counters::{ProgramCounters, RawCounters},
    kernel::OBJECT,
};

fn samples() -> Vec<Vec<u8>> {
    let seed = Record {
        header: encode::header(Kind::Seed, 9, 90, 900),
        body: Body::Seed(Seed {
            pid_ns: 42,
            net_ns: 43,
        }),
    };
    [
        encode::fork((10, 100), (9, 90), 1000),
        encode::exec((10, 100), (9, 90), 1001, b"sh\0-c\0true\0"),
        encode::exit((10, 100), 1002, 9),
        seed,
    ]
    .iter()
    .map(encode::bytes)
    .collect()
}

/// xorshift64*: the same bytes in every run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

#[test]
fn what_the_programs_write_decodes_to_the_same_values() {
    let record = encode::exec((10, 100), (9, 90), 1001, b"sh\0-c\0true\0");
    let mut decoded = decode(&encode::bytes(&record)).unwrap();
    decoded.header.length = 0;
    assert_eq!(decoded, record);
}

#[test]
fn every_truncation_of_a_record_is_an_error() {
    for bytes in samples() {
        assert!(decode(&bytes).is_ok());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(&longer), Err(DecodeError::Long));
    }
}

#[test]
fn a_length_larger_than_the_record_is_an_error() {
    let mut bytes = samples().swap_remove(1);
    for field in [4, 116, 120, 124] {
        let kept = bytes.clone();
        bytes[field..field + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(decode(&bytes).is_err(), "field at {field}");
        bytes = kept;
    }
}

#[test]
fn decode_never_panics_on_any_bytes() {
    let mut state = 0x1234_5678_9ABC_DEF1;
    for _ in 0..20_000 {
        let length = usize::try_from(random(&mut state) % 300).unwrap();
        let noise: Vec<u8> = (0..length)
            .map(|_| random(&mut state).to_ne_bytes()[3])
            .collect();
        let _ = decode(&noise);
        let mut samples = samples();
        let pick = usize::try_from(random(&mut state) % 4).unwrap();
        let bytes = &mut samples[pick];
        for _ in 0..=random(&mut state) % 4 {
            let at = usize::try_from(random(&mut state)).unwrap() % bytes.len();
            bytes[at] = random(&mut state).to_ne_bytes()[2];
        }
        let _ = decode(bytes);
    }
}

#[test]
fn records_in_a_row_are_told_apart() {
    let all = samples().concat();
    let mut rest = all.as_slice();
    let mut kinds = Vec::new();
    while !rest.is_empty() {
        let (record, after) = decode_first(rest).unwrap();
        kinds.push(record.header.kind);
        rest = after;
    }
    assert_eq!(kinds, [0, 1, 2, 3]);
}

#[test]
fn layout_equals_the_btf_of_the_object() {
    let structs = btf_structs(OBJECT);
    let check = |name: &str, size: usize, fields: &[(&str, usize)]| {
        let (actual_size, members) = structs.get(name).expect(name);
        assert_eq!(*actual_size, size, "{name}");
        let expected: BTreeMap<String, usize> = fields
            .iter()
            .map(|(field, offset)| ((*field).to_owned(), *offset))
            .collect();
        assert_eq!(*members, expected, "{name}");
    };
    macro_rules! fields {
        ($type:ty: $($field:ident),*) => {
            &[$((stringify!($field), offset_of!($type, $field))),*]
        };
    }
    check(
        "inwarden_header",
        size_of::<Header>(),
        fields!(Header: version, kind, flags, length, sequence, boot_time_ns, leader_start_ns,
            cgroup_id, tgid, tid, parent_tgid, uid, gid, cpu, mount_ns, verdict, parent_start_ns,
            comm),
    );
    let fork = fields!(Fork: pid_ns, net_ns, forker_start_ns, forker_tgid, reserved);
    check("inwarden_fork", size_of::<Fork>(), fork);
    let exec = fields!(Exec: pid_ns, net_ns, argv_true_bytes, old_tid, exe_bytes, cwd_bytes,
        argv_bytes);
    check("inwarden_exec", size_of::<Exec>(), exec);
    let exit = fields!(Exit: pid_ns, net_ns, status, reserved);
    check("inwarden_exit", size_of::<Exit>(), exit);
    check(
        "inwarden_seed",
        size_of::<Seed>(),
        fields!(Seed: pid_ns, net_ns),
    );
    let counters = fields!(ProgramCounters: seen, emitted, dropped_ring_full, dropped_no_scratch,
        filtered_own, filtered_cgroup, argv_unreadable, path_incomplete);
    // Rust may order `ProgramCounters` as it likes; the map value is an array in C's order.
    let (size, members) = &structs["inwarden_counters"];
    assert_eq!(*size, size_of::<RawCounters>());
    for (index, (name, _)) in counters.iter().enumerate() {
        assert_eq!(members[*name], index * 8, "{name}");
    }
    let (size, members) = &structs["inwarden_settings"];
    assert_eq!(*size, 16);
    assert_eq!(members["wakeup_bytes"], 12);
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
}

fn text_at(bytes: &[u8], at: usize) -> String {
    let end = bytes[at..].iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8(bytes[at..at + end].to_vec()).unwrap()
}

/// Contents of an ELF64 section.
fn section<'a>(elf: &'a [u8], wanted: &str) -> &'a [u8] {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let (table, count, names) = (u64_at(elf, 0x28), u16_at(0x3C), u16_at(0x3E));
    let header = |index: usize| &elf[table + index * 64..table + (index + 1) * 64];
    let content = |index: usize| {
        let offset = u64_at(header(index), 0x18);
        &elf[offset..offset + u64_at(header(index), 0x20)]
    };
    let index = (1..count)
        .find(|index| text_at(content(names), u32_at(header(*index), 0)) == wanted)
        .expect(wanted);
    content(index)
}

/// Size and member offsets in bytes of every named struct.
///
/// Format: <https://docs.kernel.org/bpf/btf.html>.
fn btf_structs(elf: &[u8]) -> BTreeMap<String, (usize, BTreeMap<String, usize>)> {
    let btf = section(elf, ".BTF");
    let header = u32_at(btf, 4);
    let (types, strings) = (header + u32_at(btf, 8), header + u32_at(btf, 16));
    let end = types + u32_at(btf, 12);
    let mut structs = BTreeMap::new();
    let mut at = types;
    while at < end {
        let (name, info, size) = (u32_at(btf, at), u32_at(btf, at + 4), u32_at(btf, at + 8));
        let (count, kind) = (info & 0xffff, (info >> 24) & 0x1f);
        at += 12;
        let following = match kind {
            1 | 14 | 17 => 4,              // integer, variable, declaration tag
            3 => 12,                       // array
            4 | 5 | 15 | 19 => 12 * count, // struct, union, section, 64-bit enum
            6 | 13 => 8 * count,           // enum, function prototype
            _ => 0,
        };
        if kind == 4 {
            let members = (0..count)
                .map(|index| at + 12 * index)
                .map(|member| {
                    let name = text_at(btf, strings + u32_at(btf, member));
                    (name, (u32_at(btf, member + 8) & 0xff_ffff) / 8)
                })
                .collect();
            structs.insert(text_at(btf, strings + name), (size, members));
        }
        at += following;
    }
    structs
}
