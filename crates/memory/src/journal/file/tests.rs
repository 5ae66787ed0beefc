use uuid::Uuid;

use super::*;
use crate::journal::EntryRef;

fn encoded(n: u128) -> Vec<u8> {
    let entry = Entry::Remove {
        point: Uuid::from_u128(n),
    };
    EntryRef {
        collection: CollectionId::Precedents,
        entry: &entry,
    }
    .encode()
    .unwrap()
}

/// Writes groups of the sizes given, numbering the entries from 1, unsealed.
fn write(dir: &Path, groups: &[u128]) -> Vec<Location> {
    let mut journal = Journal::create(dir, 77).unwrap();
    let mut next = 1;
    let mut all = Vec::new();
    for size in groups {
        let entries: Vec<_> = (next..next + size).map(encoded).collect();
        next += size;
        all.extend(journal.append(&entries).unwrap());
    }
    // As a process that is killed leaves it: without a seal.
    journal.failed = true;
    all
}

fn read(dir: &Path) -> Result<(Vec<u128>, u64), MemoryError> {
    let mut found = Vec::new();
    let (mut journal, recovered) = Journal::open(dir, |_, entry, _| {
        if let Entry::Remove { point } = entry {
            found.push(point.as_u128());
        }
        Ok(())
    })?;
    journal.failed = true;
    Ok((found, recovered.torn_bytes))
}

fn change(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn every_cut_keeps_the_whole_groups_before_it_and_takes_writes_again() {
    let whole = tempfile::tempdir().unwrap();
    let locations = write(whole.path(), &[1, 3, 1]);
    let bytes = fs::read(whole.path().join(FILE)).unwrap();
    let group_ends = [0, 3, 4].map(|idx: usize| {
        let at = locations[idx];
        usize::try_from(at.offset).unwrap() + at.len as usize
    });
    for cut in HEADER_BYTES..=bytes.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), &bytes[..cut]).unwrap();
        let whole_groups = group_ends.iter().filter(|end| **end <= cut).count();
        let expected: Vec<u128> = (1..=[0, 1, 4, 5][whole_groups]).collect();
        let (found, torn) = read(dir.path()).unwrap();
        assert_eq!(found, expected, "cut at {cut}");
        let valid = if whole_groups == 0 {
            HEADER_BYTES
        } else {
            group_ends[whole_groups - 1]
        };
        assert_eq!(torn, (cut - valid) as u64, "cut at {cut}");
        let (mut journal, _) = Journal::open(dir.path(), |_, _, _| Ok(())).unwrap();
        journal.append(&[encoded(99)]).unwrap();
        drop(journal);
        let (found, torn) = read(dir.path()).unwrap();
        assert_eq!((found.last(), torn), (Some(&99), 0), "cut at {cut}");
    }
}

#[test]
fn damage_before_the_last_group_names_its_offset_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let locations = write(dir.path(), &[1, 3, 1]);
    let bytes = fs::read(dir.path().join(FILE)).unwrap();
    for at in &locations[..4] {
        let byte = usize::try_from(at.offset).unwrap() + HEAD_BYTES + 2;
        change(dir.path(), |bytes| bytes[byte] ^= 1);
        match read(dir.path()) {
            Err(MemoryError::JournalDamaged { offset, .. }) => assert_eq!(offset, at.offset),
            other => panic!("{other:?}"),
        }
        change(dir.path(), |bytes| bytes[byte] ^= 1);
    }
    assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), bytes);
}

#[test]
fn a_length_that_points_past_the_end_in_the_middle_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let locations = write(dir.path(), &[1, 1, 1]);
    let head = usize::try_from(locations[1].offset).unwrap();
    change(dir.path(), |bytes| bytes[head..head + 4].fill(0xff));
    assert!(matches!(
        read(dir.path()),
        Err(MemoryError::JournalDamaged { offset, .. }) if offset == locations[1].offset
    ));
}

#[test]
fn a_hole_in_the_last_group_is_a_torn_write_even_if_frames_follow() {
    // Pages of one write can reach the disk in any order.
    let dir = tempfile::tempdir().unwrap();
    let locations = write(dir.path(), &[2, 4]);
    let byte = usize::try_from(locations[3].offset).unwrap();
    change(dir.path(), |bytes| bytes[byte..byte + 30].fill(0));
    let (found, torn) = read(dir.path()).unwrap();
    assert_eq!(found, [1, 2]);
    assert!(torn > 0);
}

#[test]
fn after_a_seal_damage_to_the_last_group_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let locations = write(dir.path(), &[2]);
    let (journal, _) = Journal::open(dir.path(), |_, _, _| Ok(())).unwrap();
    drop(journal);
    let byte = usize::try_from(locations[1].offset).unwrap() + HEAD_BYTES;
    change(dir.path(), |bytes| bytes[byte] ^= 1);
    assert!(matches!(
        read(dir.path()),
        Err(MemoryError::JournalDamaged { .. })
    ));
}

#[test]
fn a_stored_text_cannot_pose_as_a_later_frame() {
    // The text of a torn write holds a whole journal of someone else's.
    let theirs = tempfile::tempdir().unwrap();
    Journal::create(theirs.path(), 1).unwrap();
    let mut forged = Vec::new();
    frame::push(&mut forged, 1, Place { group: 9, after: 0 }, &encoded(1));
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[1]);
    change(dir.path(), |bytes| {
        bytes.extend_from_slice(&[9; 40]);
        bytes.extend_from_slice(&forged);
    });
    let (found, torn) = read(dir.path()).unwrap();
    assert_eq!(found, [1]);
    assert_eq!(torn, 40 + forged.len() as u64);
}

#[test]
fn repair_keeps_all_that_checks_and_the_damaged_file() {
    let dir = tempfile::tempdir().unwrap();
    let locations = write(dir.path(), &[1, 3, 1]);
    let byte = usize::try_from(locations[2].offset).unwrap() + HEAD_BYTES;
    change(dir.path(), |bytes| bytes[byte] ^= 1);
    let damaged = fs::read(dir.path().join(FILE)).unwrap();
    let report = repair(dir.path(), 77).unwrap();
    assert_eq!((report.kept_entries, report.damaged_regions), (4, 1));
    assert_eq!(report.lost_bytes, u64::from(locations[2].len));
    assert_eq!(read(dir.path()).unwrap().0, [1, 2, 4, 5]);
    assert_eq!(fs::read(dir.path().join(FILE_DAMAGED)).unwrap(), damaged);
}

#[test]
fn compaction_keeps_the_live_and_the_readers_of_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let locations = write(dir.path(), &[2, 3]);
    let (mut journal, _) = Journal::open(dir.path(), |_, _, _| Ok(())).unwrap();
    let old = journal.file();
    let moved = journal.compact(&[locations[4], locations[1]]).unwrap();
    let id = |file: &JournalFile, at| match file.read(at).unwrap().1 {
        Entry::Remove { point } => point.as_u128(),
        Entry::Put { .. } => 0,
    };
    assert_eq!(id(&old, locations[0]), 1);
    assert_eq!(id(&journal.file(), moved[0]), 5);
    assert_eq!(id(&journal.file(), moved[1]), 2);
    journal.append(&[encoded(9)]).unwrap();
    drop(journal);
    assert_eq!(read(dir.path()).unwrap().0, [5, 2, 9]);
}
