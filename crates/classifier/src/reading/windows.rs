//! Long texts in overlapping windows.

use std::ops::Range;

/// The windows of a text: at most `window_bytes` each, neighbours share
/// `overlap_bytes`, borders on character boundaries and, where one is near, behind
/// a line or sentence. A short text is one window. At most `max_windows`: if there
/// are more, the first and the last of them are kept and the flag is set.
pub(crate) fn windows(
    text: &str,
    window_bytes: usize,
    overlap_bytes: usize,
    max_windows: usize,
) -> (Vec<Range<usize>>, bool) {
    let window_bytes = window_bytes.max(16);
    let overlap_bytes = overlap_bytes.min(window_bytes / 2);
    let mut found = Vec::new();
    let mut start = 0;
    loop {
        let end = border(text, start, start.saturating_add(window_bytes));
        found.push(start..end);
        if end >= text.len() {
            break;
        }
        start = ceil_boundary(text, (end - overlap_bytes).max(start + 1));
    }
    let is_cut = found.len() > max_windows.max(1);
    if is_cut {
        let last = max_windows.max(1) / 3;
        let first = max_windows.max(1) - last;
        found.drain(first..found.len() - last);
    }
    (found, is_cut)
}

/// The end of a window: behind a line or sentence in its last quarter, else `end`.
fn border(text: &str, start: usize, end: usize) -> usize {
    if end >= text.len() {
        return text.len();
    }
    let end = floor_boundary(text, end).max(start + 1);
    let end = ceil_boundary(text, end);
    let quarter = ceil_boundary(text, end - (end - start) / 4);
    let tail = &text[quarter..end];
    let cut = tail
        .rfind('\n')
        .or_else(|| tail.rfind(". "))
        .or_else(|| tail.rfind(' '));
    cut.map_or(end, |at| quarter + at + 1)
}

fn floor_boundary(text: &str, mut index: usize) -> usize {
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

fn ceil_boundary(text: &str, mut index: usize) -> usize {
    while !text.is_char_boundary(index) {
        index += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything_and_overlap() {
        for text in [
            "",
            "short",
            &"word ".repeat(500),
            &"é".repeat(3000),
            &"x".repeat(5000),
            &"a line\n".repeat(400),
        ] {
            let (found, is_cut) = windows(text, 300, 60, 1000);
            assert!(!is_cut);
            assert_eq!(
                (found[0].start, found[found.len() - 1].end),
                (0, text.len())
            );
            for pair in found.windows(2) {
                assert!(
                    pair[1].start < pair[0].end && pair[1].start > pair[0].start,
                    "{pair:?}"
                );
            }
            for range in found {
                assert!(
                    range.len() <= 300 && text.get(range.clone()).is_some(),
                    "{range:?}"
                );
            }
        }
    }

    #[test]
    fn of_too_many_both_ends_stay() {
        let text = "word ".repeat(5000);
        let (found, is_cut) = windows(&text, 300, 60, 9);
        assert!(is_cut && found.len() == 9);
        assert_eq!((found[0].start, found[8].end), (0, text.len()));
    }
}
