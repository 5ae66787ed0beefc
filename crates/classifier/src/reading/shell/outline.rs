//! Where the statements and comments of a text stand.

use std::ops::Range;

use tree_sitter::Node;

use super::{
    super::is_interpreter,
    inert::{PLACEHOLDER, inert_words},
    parse::is_too_much,
    tree::tree_of,
};

const MAX_STATEMENTS: usize = 256;
/// Nodes that are looked at for comments.
const MAX_NODES: usize = 20_000;

/// The statements of a text that are not inside others, and its comments, in order.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    pub(crate) statements: Vec<Statement>,
    comments: Vec<Range<usize>>,
    /// Arguments that are only data and read like command lines.
    inert: Vec<Range<usize>>,
    /// Whether the grammar did not understand all of it.
    pub(crate) broken: bool,
    /// Whether arguments that are only data can be told.
    pub(crate) sure: bool,
}

/// A statement by its place, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) range: Range<usize>,
    /// What stands in its braces, of a function, a group or a subshell.
    pub(crate) body: Option<Range<usize>>,
}

/// The outline of `text`; `None` where the grammar cannot take it or something of it
/// was not looked at.
pub(crate) fn outline(text: &str) -> Option<Outline> {
    if is_too_much(text) {
        return None;
    }
    let tree = tree_of(text)?;
    let root = tree.root_node();
    let mut found = Outline {
        broken: root.has_error(),
        ..Outline::default()
    };
    let mut cursor = root.walk();
    for node in root.named_children(&mut cursor) {
        if node.kind() != "comment" {
            found.statements.push(Statement {
                range: node.byte_range(),
                body: body_of(node),
            });
        }
    }
    let mut n_nodes = 0;
    let mut cursor = root.walk();
    'walk: loop {
        n_nodes += 1;
        match cursor.node().kind() {
            "comment" => found.comments.push(cursor.node().byte_range()),
            "command" => found.inert.extend(inert_words(text, cursor.node())),
            _ => {}
        }
        if cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                break 'walk;
            }
        }
        if n_nodes > MAX_NODES {
            return None;
        }
    }
    found.sure = !found.broken && found.names_are_sure(text);
    if !found.sure {
        found.inert.clear();
    }
    (found.statements.len() <= MAX_STATEMENTS).then_some(found)
}

impl Outline {
    /// What stands in `range` of `text`, without its comments and the lines that
    /// have nothing else.
    pub(crate) fn without_comments(&self, text: &str, range: &Range<usize>) -> String {
        self.with(text, range, &self.comments, &[])
    }

    /// The same, with a placeholder for each argument that is only data and reads
    /// like a command line.
    pub(crate) fn as_run(&self, text: &str, range: &Range<usize>) -> String {
        self.with(text, range, &self.comments, &self.inert)
    }

    /// Whether nothing here gives a name another meaning, sends all output another
    /// way, or runs what another command was told or prints.
    fn names_are_sure(&self, text: &str) -> bool {
        const UNSURE: [&str; 10] = [
            "alias",
            "PATH=",
            "exec",
            "()",
            "function ",
            "$(",
            "`",
            "$_",
            "${",
            ". ",
        ];
        let run = self.as_run(text, &(0..text.len()));
        let mut words = run.split(|c: char| !c.is_alphanumeric());
        !UNSURE.iter().any(|word| run.contains(word))
            && !words.any(|word| is_interpreter(word) || matches!(word, "xargs" | "parallel"))
    }

    fn with(
        &self,
        text: &str,
        range: &Range<usize>,
        comments: &[Range<usize>],
        inert: &[Range<usize>],
    ) -> String {
        let within = |part: &&Range<usize>| part.start >= range.start && part.end <= range.end;
        let comments = comments.iter().filter(within).map(|part| (part, true));
        let inert = inert.iter().filter(within).map(|part| (part, false));
        let mut parts: Vec<(&Range<usize>, bool)> = comments.chain(inert).collect();
        parts.sort_by_key(|(part, _)| part.start);
        let mut kept = String::with_capacity(range.len());
        let mut at = range.start;
        for (part, is_comment) in parts {
            let Some(between) = text.get(at..part.start) else {
                continue;
            };
            kept.push_str(between);
            at = part.end;
            if !is_comment {
                kept.push('\'');
                kept.push_str(PLACEHOLDER);
                kept.push('\'');
                continue;
            }
            let before = kept.trim_end_matches([' ', '\t']).len();
            kept.truncate(before);
            let is_line_end = text[at..].starts_with('\n');
            if is_line_end && (kept.is_empty() || kept.ends_with('\n')) {
                at += 1;
            }
        }
        kept.push_str(text.get(at..range.end).unwrap_or_default());
        kept.trim().to_owned()
    }

    /// From the first to the last statement.
    pub(crate) fn extent(&self) -> Range<usize> {
        match (self.statements.first(), self.statements.last()) {
            (Some(first), Some(last)) => first.range.start..last.range.end,
            _ => 0..0,
        }
    }
}

/// What stands between the braces of a function, a group or a subshell.
fn body_of(node: Node<'_>) -> Option<Range<usize>> {
    let body = match node.kind() {
        "function_definition" => node.child_by_field_name("body")?,
        _ => node,
    };
    match body.kind() {
        "compound_statement" | "subshell" => {
            let range = body.byte_range();
            (range.len() >= 2).then(|| range.start + 1..range.end - 1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        let found = outline(text).unwrap();
        let ranges = found.statements.into_iter();
        ranges.map(|statement| &text[statement.range]).collect()
    }

    #[test]
    fn statements_are_told_apart_as_the_shell_does() {
        assert_eq!(
            texts("# a\ncd /x && ls; date\nf() { id; }; f | sh # b"),
            ["cd /x && ls", "date", "f() { id; }", "f | sh"]
        );
        assert_eq!(
            texts("cat > x <<E\na; b\nE\nsh x"),
            ["cat > x <<E\na; b\nE", "sh x"]
        );
        let group = "{ id; w; }";
        let body = outline(group).unwrap().statements[0].body.clone().unwrap();
        assert_eq!(group[body].trim(), "id; w;");
    }

    #[test]
    fn comments_go_and_nothing_else_does() {
        let without = |text: &str| {
            let found = outline(text).unwrap();
            found.without_comments(text, &found.extent())
        };
        let plain = "curl http://a/x#y -o 'a # b'\nls";
        assert_eq!(without(plain), plain);
        let noted = "# one\n# two\ncurl http://a/x#y -o 'a # b' # three\n# four\nls\n# five";
        assert_eq!(without(noted), plain);
        assert_eq!(without("if a; then\n  # x\n  b\nfi"), "if a; then\n  b\nfi");
        assert_eq!(without("# only"), "");
    }

    #[test]
    fn what_is_too_much_has_no_outline() {
        assert!(outline(&"$(".repeat(20_000)).is_none());
        assert!(outline(&"a\n".repeat(400)).is_none());
        assert!(outline("").unwrap().statements.is_empty());
    }
}
