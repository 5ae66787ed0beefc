//! The files that are imported: found and read within bounds.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{ImportError, Imported};

/// The most files and directories that are looked at.
const MAX_ENTRIES: u64 = 50_000;
/// The deepest directory that is looked into.
const MAX_DIRECTORIES_DEEP: u64 = 32;

/// The text of a file of at most `max_bytes`.
pub(super) fn read_text(path: &Path, max_bytes: u64) -> Result<String, ImportError> {
    let unreadable = |source| ImportError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ImportError::Limit {
            path: path.to_owned(),
            what: "bytes",
            limit: max_bytes,
        });
    }
    String::from_utf8(bytes).map_err(|error| ImportError::NotUtf8 {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// The regular files below `root` with one of these endings, in order, or `root`
/// itself if it is a file. Links are not followed; other files are counted.
pub(super) fn below(
    root: &Path,
    endings: &[&str],
    imported: &mut Imported,
) -> Result<Vec<PathBuf>, ImportError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ImportError::Read { path, source }
    };
    let limit = |what, limit| ImportError::Limit {
        path: root.to_owned(),
        what,
        limit,
    };
    if !fs::metadata(root).map_err(unreadable(root))?.is_dir() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    let mut waiting = vec![(root.to_owned(), 1)];
    let mut n_entries = 0;
    while let Some((dir, depth)) = waiting.pop() {
        for entry in fs::read_dir(&dir).map_err(unreadable(&dir))? {
            let entry = entry.map_err(unreadable(&dir))?;
            n_entries += 1;
            if n_entries > MAX_ENTRIES {
                return Err(limit("files and directories", MAX_ENTRIES));
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(unreadable(&path))?;
            let ending = path.extension().and_then(|ending| ending.to_str());
            let fits = ending.is_some_and(|ending| endings.contains(&ending));
            if kind.is_dir() {
                if depth == MAX_DIRECTORIES_DEEP {
                    return Err(limit("directories deep", MAX_DIRECTORIES_DEEP));
                }
                waiting.push((path, depth + 1));
            } else if kind.is_symlink() {
                imported.skip("a link", 1);
            } else if kind.is_file() && fits {
                found.push(path);
            } else {
                imported.skip("another kind of file", 1);
            }
        }
    }
    found.sort();
    Ok(found)
}
