//! Runbooks: Markdown, cut at its headings into parts of bounded length.
//!
//! Source: CommonMark 0.31, sections 4.2 (ATX headings) and 4.5 (fenced code blocks,
//! inside of which a `#` is no heading). Everything else is left as it is written.

use crate::FeedError;

/// The longest part, in bytes: about what an embedder of short texts reads.
pub const MAX_PART_BYTES: usize = 1_500;
/// The most parts of a runbook.
pub const MAX_RUNBOOK_PARTS: usize = 1_000;
/// The longest heading that is kept, in bytes.
const MAX_HEADING_BYTES: usize = 200;

/// A part of a runbook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunbookPart {
    /// The headings it stands under, outermost first.
    pub headings: Vec<String>,
    /// Its text, at most [`MAX_PART_BYTES`], never blank.
    pub text: String,
    /// The line it begins on, from 1.
    pub line: usize,
}

/// Cuts a runbook at its headings, and long sections between paragraphs, else between
/// lines, else anywhere. Sections without a text of their own give no part.
///
/// # Errors
/// [`FeedError::TooMany`] with the offset at which part
/// [`MAX_RUNBOOK_PARTS`]` + 1` would begin.
pub fn split_runbook(text: &str) -> Result<Vec<RunbookPart>, FeedError> {
    let mut parts = Vec::new();
    let mut headings: Vec<(usize, String)> = Vec::new();
    let mut fence: Option<&str> = None;
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (idx, line) in text.split_inclusive('\n').enumerate() {
        let heading = match fence {
            Some(mark) => {
                if fence_of(line).is_some_and(|other| other.starts_with(mark)) {
                    fence = None;
                }
                None
            }
            None => {
                fence = fence_of(line);
                heading_of(line)
            }
        };
        if let Some((level, name)) = heading {
            push_section(
                &mut parts,
                &headings,
                (&text[start..offset], start, start_line),
            )?;
            headings.retain(|(outer, _)| *outer < level);
            headings.push((level, name));
            start = offset + line.len();
            start_line = idx + 2;
        }
        offset += line.len();
    }
    push_section(&mut parts, &headings, (&text[start..], start, start_line))?;
    Ok(parts)
}

/// The marks of a line that opens or closes fenced code.
fn fence_of(line: &str) -> Option<&str> {
    let line = line.trim_start_matches(' ');
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let end = line.find(|c| c != mark).unwrap_or(line.len());
    (end >= 3).then(|| &line[..end])
}

fn heading_of(line: &str) -> Option<(usize, String)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let name = &line[level..];
    if !(1..=6).contains(&level) || !(name.trim().is_empty() || name.starts_with([' ', '\t'])) {
        return None;
    }
    let name = name.trim().trim_end_matches('#').trim_end();
    let name = &name[..name.floor_char_boundary(MAX_HEADING_BYTES)];
    Some((level, name.to_owned()))
}

fn push_section(
    parts: &mut Vec<RunbookPart>,
    headings: &[(usize, String)],
    (mut section, mut offset, mut line): (&str, usize, usize),
) -> Result<(), FeedError> {
    while !section.trim().is_empty() {
        let end = end_of_part(section);
        let (part, rest) = section.split_at(end);
        if !part.trim().is_empty() {
            if parts.len() == MAX_RUNBOOK_PARTS {
                return Err(FeedError::TooMany {
                    field: "parts",
                    limit: MAX_RUNBOOK_PARTS,
                    offset,
                });
            }
            let blank = part.len() - part.trim_start().len();
            parts.push(RunbookPart {
                headings: headings.iter().map(|(_, name)| name.clone()).collect(),
                text: part.trim().to_owned(),
                line: line + part[..blank].matches('\n').count(),
            });
        }
        line += part.matches('\n').count();
        offset += end;
        section = rest;
    }
    Ok(())
}

/// Where the first part of `section` ends: at least one character on.
fn end_of_part(section: &str) -> usize {
    if section.len() <= MAX_PART_BYTES {
        return section.len();
    }
    let window = &section[..section.floor_char_boundary(MAX_PART_BYTES)];
    let after = |mark: &str| window.rfind(mark).map(|at| at + mark.len());
    after("\n\n")
        .filter(|end| !window[..*end].trim().is_empty())
        .or_else(|| after("\n").filter(|end| !window[..*end].trim().is_empty()))
        .or_else(|| after(" ").filter(|end| !window[..*end].trim().is_empty()))
        .unwrap_or(window.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(String, String, usize)> {
        let parts = split_runbook(text).unwrap();
        parts
            .into_iter()
            .map(|part| (part.headings.join(" > "), part.text, part.line))
            .collect()
    }

    fn part(headings: &str, text: &str, line: usize) -> (String, String, usize) {
        (headings.to_owned(), text.to_owned(), line)
    }

    #[test]
    fn parts_stand_under_their_headings() {
        let text = "intro\n\n# Restore #\n\n## Check\nsee `#logs`\n#no heading\n### Deep\n\ndeep\n## Do\r\nrun it\r\n# End\n";
        assert_eq!(
            shown(text),
            [
                part("", "intro", 1),
                part("Restore > Check", "see `#logs`\n#no heading", 6),
                part("Restore > Check > Deep", "deep", 10),
                part("Restore > Do", "run it", 12),
            ]
        );
    }

    #[test]
    fn a_comment_in_code_is_no_heading() {
        let text =
            "# A\n```sh\n# not one\n~~~\n# nor this\n```\n## B\nx\n~~~~\n# still\n~~~\n~~~~\n";
        assert_eq!(
            shown(text),
            [
                part("A", "```sh\n# not one\n~~~\n# nor this\n```", 2),
                part("A > B", "x\n~~~~\n# still\n~~~\n~~~~", 8),
            ]
        );
        // A fence that is never closed reaches to the end.
        assert_eq!(shown("```\n# a\n# b\n").len(), 1);
    }

    #[test]
    fn long_sections_are_cut_where_it_hurts_least_and_nothing_is_lost() {
        let paragraphs: Vec<String> = (0..40)
            .map(|n| format!("step {n} {}", "w ".repeat(60)))
            .collect();
        for text in [
            paragraphs.join("\n\n"),
            paragraphs.join("\n"),
            paragraphs.join(" "),
            "é".repeat(9_001),
            format!("{}\n\n{}", " ".repeat(4_000), "x".repeat(4_000)),
        ] {
            let parts = split_runbook(&text).unwrap();
            assert!(parts.len() > 1);
            assert!(parts.iter().all(|part| part.text.len() <= MAX_PART_BYTES));
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            let joined: String = parts.iter().map(|part| squeeze(&part.text)).collect();
            assert_eq!(joined, squeeze(&text));
        }
        assert!(
            split_runbook(&paragraphs.join("\n\n")).unwrap()[0]
                .text
                .ends_with('w')
        );
    }

    #[test]
    fn what_is_empty_has_no_parts_and_too_many_are_refused() {
        for text in ["", " \n\n", "#\n##\n# a\n", "\t"] {
            assert_eq!(shown(text), [], "{text:?}");
        }
        let many = "# a\nb\n".repeat(MAX_RUNBOOK_PARTS + 1);
        assert!(matches!(
            split_runbook(&many),
            Err(FeedError::TooMany { limit: MAX_RUNBOOK_PARTS, offset, .. }) if offset == many.len() - 2
        ));
    }
}
