//! Words to arguments: braces, variables, field splitting and file names.
//!
//! Only constants are known: what a variable holds if it was assigned in the same
//! text, and the few variables that are alike on every host. What is not known
//! stays as it is written.

use super::{Environment, Value};
use crate::reading::shell::{Part, VariablePrefix, Word};

/// Words that braces may make of one.
const MAX_BRACE_WORDS: usize = 48;
/// Bytes of one argument.
const MAX_ARGUMENT_BYTES: usize = 64 * 1024;

/// What one word becomes.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    pub(super) fields: Vec<String>,
    /// Substitutions whose output is part of it.
    pub(super) sources: Vec<usize>,
    /// Whether a part of it is not known.
    pub(super) is_unknown: bool,
    /// Streams such as `<( )`.
    pub(super) streams: Vec<usize>,
    /// Whether letters were put together from variables, braces or patterns.
    pub(super) assembled: bool,
}

/// Expands `word`; `output` tells what a substitution prints, if that is known.
pub(super) fn expand(
    word: &Word,
    environment: &Environment,
    output: &dyn Fn(usize) -> Option<String>,
) -> Expanded {
    if let [Part::Literal { text, quoted }] = word.parts.as_slice()
        && (*quoted || !text.contains(['{', '*', '?', '[']))
    {
        return Expanded {
            fields: vec![text.clone()],
            ..Expanded::default()
        };
    }
    let mut expanded = Expanded::default();
    let variants = brace_variants(&word.parts);
    expanded.assembled |= variants.len() > 1;
    for parts in variants {
        let mut fields = Fields::default();
        for part in &parts {
            append(part, environment, output, &mut fields, &mut expanded);
        }
        // Several pieces of which one is known make a word nobody wrote.
        let n_known = parts
            .iter()
            .filter(|p| matches!(p, Part::Variable { .. }))
            .count();
        let has_letters = parts.iter().any(|p| {
            matches!(p, Part::Literal { text, .. } if text.bytes().any(|b| b.is_ascii_alphabetic()))
        });
        expanded.assembled |= fields.n_known > 0
            && fields.n_known == n_known
            && (n_known > 1 || fields.sliced || (has_letters && !parts_are_path_like(&parts)));
        fields.finish(&mut expanded);
    }
    expanded
}

/// `$DIR/file` and `--out=$X` are no puzzle; `cu$x` is.
fn parts_are_path_like(parts: &[Part]) -> bool {
    parts.windows(2).all(|pair| match pair {
        [Part::Literal { text, .. }, Part::Variable { .. }] => {
            !text.ends_with(|c: char| c.is_ascii_alphanumeric())
        }
        [Part::Variable { .. }, Part::Literal { text, .. }] => {
            !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        }
        _ => true,
    })
}

/// The fields of a word being put together.
#[derive(Default)]
struct Fields {
    done: Vec<String>,
    current: String,
    started: bool,
    has_pattern: bool,
    n_known: usize,
    sliced: bool,
}

impl Fields {
    fn push(&mut self, text: &str) {
        if self.current.len() + text.len() <= MAX_ARGUMENT_BYTES {
            self.current.push_str(text);
        }
        self.started = true;
    }

    fn push_split(&mut self, text: &str, separators: &str) {
        for (idx, piece) in text.split(|c| separators.contains(c)).enumerate() {
            if idx > 0 {
                self.end_field();
            }
            if !piece.is_empty() {
                self.push(piece);
            }
        }
    }

    fn end_field(&mut self) {
        if std::mem::take(&mut self.started) {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self, expanded: &mut Expanded) {
        self.end_field();
        for field in self.done {
            match self.has_pattern.then(|| program_matching(&field)).flatten() {
                Some(path) => {
                    expanded.assembled = true;
                    expanded.fields.push(path.to_owned());
                }
                None => expanded.fields.push(field),
            }
        }
    }
}

fn append(
    part: &Part,
    environment: &Environment,
    output: &dyn Fn(usize) -> Option<String>,
    fields: &mut Fields,
    expanded: &mut Expanded,
) {
    match part {
        Part::Literal { text, quoted } => {
            fields.has_pattern |= !quoted && text.contains(['*', '?', '[']);
            fields.push(text);
        }
        Part::Arithmetic { text } => fields.push(text),
        Part::Output {
            substitution,
            quoted,
        } => {
            expanded.sources.push(*substitution);
            match output(*substitution) {
                Some(text) if *quoted => fields.push(&text),
                Some(text) => fields.push_split(&text, environment.separators()),
                None => {
                    expanded.is_unknown = true;
                    fields.push("$()");
                }
            }
        }
        Part::Variable {
            name,
            prefix,
            operation,
            quoted,
        } => {
            let value = environment.value(name);
            if let Some(Value { sources, .. }) = value {
                expanded.sources.extend(sources);
            }
            let text = value_of(name, *prefix, operation, environment);
            match text {
                Some(text) => {
                    // `IFS` is what it is there for.
                    fields.n_known += 1;
                    fields.sliced |= !operation.is_empty() || name == "IFS";
                    if *quoted {
                        fields.push(&text);
                    } else {
                        fields.push_split(&text, environment.separators());
                    }
                }
                // Unset parameters of a line that nobody calls with arguments.
                None if matches!(name.as_str(), "@" | "*" | "9") && operation.is_empty() => {
                    fields.n_known += 1;
                }
                None => {
                    expanded.is_unknown = true;
                    if operation.is_empty() {
                        fields.push(&format!("${name}"));
                    } else {
                        fields.push(&format!("${{{name}{operation}}}"));
                    }
                }
            }
        }
    }
}

/// The value of `${name operation}`, if it is known.
fn value_of(
    name: &str,
    prefix: VariablePrefix,
    operation: &str,
    environment: &Environment,
) -> Option<String> {
    let known = |name: &str| match environment.value(name) {
        Some(value) => value.text.clone(),
        None => Environment::default_of(name).map(str::to_owned),
    };
    let value = known(name);
    match prefix {
        VariablePrefix::Length => return value.map(|v| v.chars().count().to_string()),
        VariablePrefix::Indirect => return known(&value?),
        VariablePrefix::None => {}
    }
    if operation.is_empty() {
        return value;
    }
    let plain = |text: &str| environment.expand_plain(text);
    if let Some(default) = operation
        .strip_prefix(":-")
        .or_else(|| operation.strip_prefix(":="))
    {
        return value
            .filter(|v| !v.is_empty())
            .or_else(|| Some(plain(default)));
    }
    if let Some(default) = operation.strip_prefix(['-', '=']) {
        return value.or_else(|| Some(plain(default)));
    }
    if let Some(instead) = operation
        .strip_prefix(":+")
        .or_else(|| operation.strip_prefix('+'))
    {
        return value.map(|_| plain(instead));
    }
    // What is sliced out of a path of no consequence is the slash.
    let value = value.or_else(|| Environment::sliceable(name).map(str::to_owned))?;
    if let Some(range) = operation.strip_prefix(':') {
        return slice(&value, range);
    }
    if let Some(rest) = operation.strip_prefix('/') {
        return Some(replace(&value, rest, &plain));
    }
    Some(match operation.as_bytes() {
        [b'#', ..] => {
            let pattern = plain(operation.trim_start_matches('#'));
            trim_start(&value, &pattern, operation.starts_with("##")).to_owned()
        }
        [b'%', ..] => {
            let pattern = plain(operation.trim_start_matches('%'));
            trim_end(&value, &pattern, operation.starts_with("%%")).to_owned()
        }
        b"^^" | b"@U" => value.to_uppercase(),
        b",," | b"@L" => value.to_lowercase(),
        b"[@]" | b"[*]" | b"[0]" | b"@Q" | b"@E" => value,
        _ => return None,
    })
}

fn slice(value: &str, range: &str) -> Option<String> {
    let (offset, len) = match range.split_once(':') {
        Some((offset, len)) => (offset, Some(len.trim().parse::<i64>().ok()?)),
        None => (range, None),
    };
    let n = i64::try_from(value.chars().count()).ok()?;
    let offset = offset.trim().trim_matches(['(', ')']).parse::<i64>().ok()?;
    let start = if offset < 0 {
        (n + offset).max(0)
    } else {
        offset.min(n)
    };
    let end = match len {
        Some(len) if len < 0 => (n + len).max(start),
        Some(len) => start.saturating_add(len).min(n),
        None => n,
    };
    let (start, len) = (
        usize::try_from(start).ok()?,
        usize::try_from(end - start).ok()?,
    );
    Some(value.chars().skip(start).take(len).collect())
}

/// `${v/from/to}` and `${v//from/to}` with fixed text.
fn replace(value: &str, rest: &str, plain: &dyn Fn(&str) -> String) -> String {
    let (all, rest) = match rest.strip_prefix('/') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (from, to) = rest.split_once('/').unwrap_or((rest, ""));
    let (from, to) = (plain(from), plain(to));
    if from.is_empty() || value.len() * (to.len() + 1) > MAX_ARGUMENT_BYTES {
        return value.to_owned();
    }
    if all {
        value.replace(&from, &to)
    } else {
        value.replacen(&from, &to, 1)
    }
}

/// Takes a leading `pattern` off, in which `*` at one end stands for anything.
fn trim_start<'a>(value: &'a str, pattern: &str, longest: bool) -> &'a str {
    let (any, core) = match pattern.strip_prefix('*') {
        Some(core) => (true, core),
        None => (false, pattern),
    };
    let found = if !any {
        value.starts_with(core).then_some(0)
    } else if longest {
        value.rfind(core)
    } else {
        value.find(core)
    };
    found.map_or(value, |at| &value[at + core.len()..])
}

fn trim_end<'a>(value: &'a str, pattern: &str, longest: bool) -> &'a str {
    let (any, core) = match pattern.strip_suffix('*') {
        Some(core) => (true, core),
        None => (false, pattern),
    };
    let found = if !any {
        value.ends_with(core).then(|| value.len() - core.len())
    } else if longest {
        value.find(core)
    } else {
        value.rfind(core)
    };
    found.map_or(value, |at| &value[..at])
}

/// The words that `{a,b}` and `{1..3}` make; the parts themselves if there are none.
fn brace_variants(parts: &[Part]) -> Vec<Vec<Part>> {
    let mut waiting = vec![parts.to_vec()];
    let mut done = Vec::new();
    while let Some(parts) = waiting.pop() {
        if waiting.len() + done.len() >= MAX_BRACE_WORDS {
            done.push(parts);
            continue;
        }
        match first_brace(&parts) {
            // Last on the stack is next, so that the order stays.
            Some(variants) => waiting.extend(variants.into_iter().rev()),
            None => done.push(parts),
        }
    }
    done
}

/// Resolves the first brace expression.
fn first_brace(parts: &[Part]) -> Option<Vec<Vec<Part>>> {
    for open_idx in 0..parts.len() {
        let Part::Literal {
            text,
            quoted: false,
        } = &parts[open_idx]
        else {
            continue;
        };
        for (open, _) in text.match_indices('{') {
            if let Some(variants) = brace_at(parts, open_idx, open) {
                return Some(variants);
            }
        }
    }
    None
}

fn brace_at(parts: &[Part], open_idx: usize, open: usize) -> Option<Vec<Vec<Part>>> {
    let mut depth = 0_usize;
    // Cuts between alternatives: part and byte, first the brace itself.
    let mut cuts = vec![(open_idx, open)];
    'outer: for (idx, part) in parts.iter().enumerate().skip(open_idx) {
        let Part::Literal {
            text,
            quoted: false,
        } = part
        else {
            continue;
        };
        let from = if idx == open_idx { open } else { 0 };
        for (at, byte) in text.bytes().enumerate().skip(from) {
            match byte {
                b'{' => depth += 1,
                b',' if depth == 1 => cuts.push((idx, at)),
                b'}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        cuts.push((idx, at));
                        break 'outer;
                    }
                }
                _ => {}
            }
        }
    }
    if depth != 0 || cuts.len() < 2 {
        return None;
    }
    let last = *cuts.last()?;
    let before = piece(parts, (0, 0), (open_idx, open));
    let after = piece(parts, (last.0, last.1 + 1), (parts.len(), 0));
    let alternatives: Vec<Vec<Part>> = if cuts.len() > 2 {
        cuts.windows(2)
            .map(|w| piece(parts, (w[0].0, w[0].1 + 1), w[1]))
            .collect()
    } else {
        range_of(parts, (open_idx, open), last)?
    };
    Some(
        alternatives
            .into_iter()
            .take(MAX_BRACE_WORDS)
            .map(|middle| [before.clone(), middle, after.clone()].concat())
            .collect(),
    )
}

/// `{1..9}` and `{a..e}`.
fn range_of(parts: &[Part], open: (usize, usize), close: (usize, usize)) -> Option<Vec<Vec<Part>>> {
    let inner = piece(parts, (open.0, open.1 + 1), close);
    let [Part::Literal { text, .. }] = inner.as_slice() else {
        return None;
    };
    let (first, last) = text.split_once("..")?;
    let literal = |text: String| {
        vec![Part::Literal {
            text,
            quoted: false,
        }]
    };
    if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
        let count = usize::try_from(last.checked_sub(first)?).ok()?;
        return (count < MAX_BRACE_WORDS)
            .then(|| (first..=last).map(|n| literal(n.to_string())).collect());
    }
    let single = |text: &str| text.chars().next().filter(|c| c.len_utf8() == text.len());
    let (first, last) = (single(first)?, single(last)?);
    Some(
        (first..=last)
            .take(MAX_BRACE_WORDS)
            .map(|c| literal(c.to_string()))
            .collect(),
    )
}

/// The parts between two places.
fn piece(parts: &[Part], from: (usize, usize), to: (usize, usize)) -> Vec<Part> {
    let mut out = Vec::new();
    for (idx, part) in parts
        .iter()
        .enumerate()
        .skip(from.0)
        .take((to.0 + 1).saturating_sub(from.0))
    {
        let Part::Literal { text, quoted } = part else {
            if idx != to.0 {
                out.push(part.clone());
            }
            continue;
        };
        let start = if idx == from.0 { from.1 } else { 0 };
        let end = if idx == to.0 { to.1 } else { text.len() };
        if let Some(text) = text.get(start..end)
            && !text.is_empty()
        {
            out.push(Part::Literal {
                text: text.to_owned(),
                quoted: *quoted,
            });
        }
    }
    out
}

/// The well-known program that a path with `?`, `*` or `[ ]` matches.
fn program_matching(pattern: &str) -> Option<&'static str> {
    const DIRECTORIES: [&str; 4] = ["/bin/", "/usr/bin/", "/usr/sbin/", "/sbin/"];
    const PROGRAMS: [&str; 26] = [
        "/bin/bash",
        "/bin/sh",
        "/bin/dash",
        "/bin/zsh",
        "/bin/cat",
        "/bin/nc",
        "/bin/rm",
        "/bin/cp",
        "/bin/chmod",
        "/bin/ls",
        "/usr/bin/curl",
        "/usr/bin/wget",
        "/usr/bin/python3",
        "/usr/bin/perl",
        "/usr/bin/base64",
        "/usr/bin/nc",
        "/usr/bin/ncat",
        "/usr/bin/bash",
        "/usr/bin/id",
        "/usr/bin/whoami",
        "/usr/bin/head",
        "/usr/bin/tail",
        "/usr/bin/xxd",
        "/etc/passwd",
        "/etc/shadow",
        "/usr/bin/socat",
    ];
    if !pattern.starts_with('/') || !pattern.contains(['*', '?', '[']) {
        return None;
    }
    // `/usr/bin/*` and `/etc/*` are lists, not disguises.
    let letters = pattern.bytes().filter(u8::is_ascii_alphanumeric).count();
    let last = pattern.rsplit('/').next().unwrap_or("");
    if last == "*" || (letters == 0 && !pattern.contains('?')) {
        return None;
    }
    let in_directory = DIRECTORIES.iter().any(|d| pattern.starts_with(d)) && last.starts_with('*');
    if in_directory {
        return None;
    }
    PROGRAMS
        .into_iter()
        .find(|path| matches_pattern(path.as_bytes(), pattern.as_bytes()))
}

/// File-name matching of one path, iteratively.
fn matches_pattern(text: &[u8], pattern: &[u8]) -> bool {
    let (mut t, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((t, p));
                p += 1;
                continue;
            }
            Some(b'?') if text[t] != b'/' => Some(1),
            Some(b'[') => class_at(&pattern[p..], text[t]),
            Some(byte) if *byte == text[t] => Some(1),
            _ => None,
        };
        if let Some(len) = step {
            t += 1;
            p += len;
        } else if let Some((from, star)) = retry
            && text[from] != b'/'
        {
            retry = Some((from + 1, star));
            t = from + 1;
            p = star + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// The length of the class at the start of `pattern`, if it holds `byte`.
fn class_at(pattern: &[u8], byte: u8) -> Option<usize> {
    let len = pattern.iter().position(|b| *b == b']')?;
    let class = &pattern[1..len];
    let (negated, class) = match class {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let range = class
        .windows(3)
        .any(|w| w[1] == b'-' && (w[0]..=w[2]).contains(&byte));
    ((class.contains(&byte) || range) != negated).then_some(len + 1)
}
