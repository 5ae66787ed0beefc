//! Text out of the bytes the programs capture: paths and arguments.

use inwarden_types::Argv;

/// How far the program got with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathEnd {
    /// It reached the root.
    Complete,
    /// It gave up below the root.
    Truncated,
    /// There is no root: a memfd, or a mount that is gone.
    Detached,
}

/// A path from its components, leaf first with a NUL after each.
///
/// A truncated one starts with `…/`, so it is not absolute; a detached one ends
/// with ` (deleted)`, as `/proc/PID/exe` shows it.
pub(crate) fn path_text(components: &[u8], end: PathEnd) -> String {
    let components = components.strip_suffix(&[0]).unwrap_or(components);
    let mut text = String::with_capacity(components.len() + 4);
    if end == PathEnd::Truncated {
        text.push('…');
    }
    if !components.is_empty() {
        for component in components.split(|byte| *byte == 0).rev() {
            text.push('/');
            text.push_str(&String::from_utf8_lossy(component));
        }
    } else if end == PathEnd::Complete {
        text.push('/');
    }
    if end == PathEnd::Detached {
        text.push_str(" (deleted)");
    }
    text
}

/// Arguments from the memory of a process, a NUL after each.
pub(crate) fn argv(bytes: &[u8], true_bytes: u64) -> Argv {
    let truncated = (bytes.len() as u64) < true_bytes;
    let captured = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let args = if bytes.is_empty() {
        Vec::new()
    } else {
        captured
            .split(|byte| *byte == 0)
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect()
    };
    Argv {
        args,
        true_bytes,
        truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_joined_from_the_root() {
        let check = |bytes: &[u8], end, expected: &str| {
            assert_eq!(path_text(bytes, end), expected);
        };
        check(b"sh\0bin\0usr\0", PathEnd::Complete, "/usr/bin/sh");
        check(b"", PathEnd::Complete, "/");
        check(b"sh\0bin\0", PathEnd::Truncated, "…/bin/sh");
        check(b"memfd:x\0", PathEnd::Detached, "/memfd:x (deleted)");
        check(b"a\xff\0", PathEnd::Complete, "/a\u{fffd}");
        check(b"", PathEnd::Truncated, "…");
    }

    #[test]
    fn arguments_are_split_at_nul_and_empty_ones_kept() {
        let check = |bytes: &[u8], true_bytes, expected: &[&str], truncated| {
            let argv = argv(bytes, true_bytes);
            assert_eq!(argv.args, expected);
            assert_eq!(argv.truncated, truncated);
            assert_eq!(argv.true_bytes, true_bytes);
        };
        check(b"a\0\0b\0", 5, &["a", "", "b"], false);
        check(b"a\0", 2, &["a"], false);
        check(b"\0", 1, &[""], false);
        check(b"a\0bc", 100, &["a", "bc"], true);
        check(b"", 0, &[], false);
        check(b"", 9, &[], true);
    }
}
