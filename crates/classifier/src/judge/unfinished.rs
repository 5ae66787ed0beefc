//! What a process that was ended while it saved a prefix has left behind.
//!
//! A prefix is written under another name, `NAME.PID-ATTEMPT.unfinished` beside the
//! file `NAME`, and renamed when it is whole; nobody else removes what was not.

use std::{
    ffi::OsStr,
    fs::DirEntry,
    path::Path,
    time::{Duration, SystemTime},
};

/// No process writes a prefix for so long.
const MIN_AGE: Duration = Duration::from_hours(24);

/// Entries of the directory that are looked at, at most.
const MAX_ENTRIES: usize = 10_000;

/// Removes the unfinished files of `file` that were last written more than a day
/// before `now`; gives how many.
///
/// Regular files with such a name alone: links are neither followed nor removed. What
/// cannot be read or removed is logged and stays.
pub(super) fn remove_unfinished(file: &Path, now: SystemTime) -> usize {
    let Some(name) = file.file_name() else {
        return 0;
    };
    let dir = match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    // Absent before the first save, which reports what is wrong with it otherwise.
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let entries = entries.take(MAX_ENTRIES).filter_map(Result::ok);
    let ours = entries.filter(|entry| is_of(name, &entry.file_name()));
    ours.filter(|entry| match remove_if_old(entry, now) {
        Ok(was_removed) => was_removed,
        Err(error) => {
            tracing::warn!(%error, "an unfinished prefix file cannot be removed");
            false
        }
    })
    .count()
}

/// Whether `entry` is the name of an unfinished file of `name`.
fn is_of(name: &OsStr, entry: &OsStr) -> bool {
    let (name, entry) = (name.as_encoded_bytes(), entry.as_encoded_bytes());
    let middle = entry
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(b".unfinished"));
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    middle.is_some_and(|middle| {
        let mut numbers = middle.split(|byte| *byte == b'-');
        let both = numbers.next().is_some_and(is_number) && numbers.next().is_some_and(is_number);
        both && numbers.next().is_none()
    })
}

fn remove_if_old(entry: &DirEntry, now: SystemTime) -> std::io::Result<bool> {
    // Of the entry itself, not of what a link leads to.
    let metadata = entry.metadata()?;
    // A time that is still to come is no age.
    let age = now.duration_since(metadata.modified()?).unwrap_or_default();
    if !metadata.is_file() || age <= MIN_AGE {
        return Ok(false);
    }
    std::fs::remove_file(entry.path())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn old_unfinished_files_of_ours_go_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let now = SystemTime::now();
        let hours = |n| now.checked_sub(Duration::from_hours(n)).unwrap();
        let create = |name: &str, changed: SystemTime| {
            File::create(path(name))
                .unwrap()
                .set_modified(changed)
                .unwrap();
        };
        create("a.prefix", hours(100));
        for name in ["a.prefix.1-0.unfinished", "a.prefix.4194304-99.unfinished"] {
            create(name, hours(25));
        }
        let kept = [
            "b.prefix.1-0.unfinished",
            "a.prefix.1.unfinished",
            "a.prefix.1-0-2.unfinished",
            "a.prefix.-0.unfinished",
            "a.prefix.x-0.unfinished",
            "a.prefix.1-0.unfinished.bak",
            "a.prefix.unfinished",
        ];
        for name in kept {
            create(name, hours(25));
        }
        create("a.prefix.2-0.unfinished", hours(23));
        create("a.prefix.2-1.unfinished", now + Duration::from_hours(48));
        symlink(path("a.prefix"), path("a.prefix.3-0.unfinished")).unwrap();
        std::fs::create_dir(path("a.prefix.3-1.unfinished")).unwrap();

        let later = now + Duration::from_secs(1);
        assert_eq!(remove_unfinished(&path("a.prefix"), later), 2);
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1 + kept.len() + 2 + 2);
        // The link and the directory are old by then, too.
        let in_a_year = now + Duration::from_hours(24 * 365);
        assert_eq!(remove_unfinished(&path("a.prefix"), in_a_year), 2);
        assert!(path("a.prefix").exists() && path("a.prefix.3-0.unfinished").exists());
        assert!(path("a.prefix.3-1.unfinished").is_dir());
        assert_eq!(remove_unfinished(&path("absent/a.prefix"), later), 0);
    }
}
