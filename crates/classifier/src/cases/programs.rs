//! What programs are to a case: who serves, who installs, who keeps what.

use inwarden_types::{Ancestor, Image};

use crate::render::base_name;

/// The name of what runs, without path, version and login dash.
pub(super) fn name_of(image: &Image) -> &str {
    let name = if !image.exe.is_empty() {
        base_name(&image.exe)
    } else if let Some(argv0) = image.argv.args.first() {
        base_name(argv0)
    } else {
        &image.comm
    };
    stem(name.trim_start_matches('-'))
}

/// A name without a version behind it: `python3.11` is `python`.
fn stem(name: &str) -> &str {
    let bare = name.strip_suffix(" (deleted)").unwrap_or(name);
    let stem = bare.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
    if stem.is_empty() { bare } else { stem }
}

/// What runs above an event, as far as it says whose work it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Above {
    /// A program that strangers talk to, at most three steps up.
    pub(super) service: bool,
    /// An interpreter or virtual machine that may serve, at most three steps up and
    /// not under a shell or a build.
    pub(super) runtime: bool,
    /// What installs, configures, builds or backs up.
    pub(super) keeper: bool,
    /// What keeps copies of everything.
    pub(super) backup: bool,
}

impl Above {
    /// Of a child of a process called `name`, where no ancestors are known.
    pub(super) fn below(self, name: &str) -> Self {
        let keeper = self.keeper || is_keeper(name);
        Self {
            service: (self.service || is_service(name)) && !keeper && !is_boundary(name),
            runtime: (self.runtime || is_runtime(name)) && !keeper && !is_boundary(name),
            keeper,
            backup: self.backup || is_backup(name),
        }
    }

    /// Of ancestors, nearest first.
    pub(super) fn of(ancestors: &[Ancestor]) -> Self {
        let names: Vec<&str> = ancestors.iter().map(|a| name_of(&a.image)).collect();
        let mut above = Self {
            keeper: names.iter().any(|name| is_keeper(name)),
            backup: names.iter().any(|name| is_backup(name)),
            ..Self::default()
        };
        for (idx, name) in names.iter().take(3).enumerate() {
            if is_boundary(name) {
                break;
            }
            above.service |= is_service(name);
            let starter = names.get(idx + 1);
            above.runtime |= is_runtime(name) && starter.is_none_or(|name| is_boundary(name));
        }
        above.service &= !above.keeper;
        above.runtime &= !above.keeper;
        above
    }
}

/// Where a tree of processes begins anew: what starts others on somebody's behalf.
pub(super) fn is_boundary(name: &str) -> bool {
    matches!(
        name,
        "systemd"
            | "init"
            | "tini"
            | "dumb-init"
            | "docker-init"
            | "catatonit"
            | "containerd-shim"
            | "containerd-shim-runc-v"
            | "runc"
            | "crun"
            | "conmon"
            | "sshd"
            | "sshd-session"
            | "cron"
            | "crond"
            | "login"
            | "supervisord"
            | "s"
            | "runsvdir"
            | "dockerd"
            | "kubelet"
            | "pause"
    )
}

/// Whether strangers talk to it over a network.
pub(super) fn is_service(name: &str) -> bool {
    matches!(
        name,
        "nginx"
            | "apache"
            | "httpd"
            | "lighttpd"
            | "php-fpm"
            | "php-cgi"
            | "tomcat"
            | "catalina"
            | "mysqld"
            | "mariadbd"
            | "postgres"
            | "postmaster"
            | "redis-server"
            | "valkey-server"
            | "mongod"
            | "vsftpd"
            | "proftpd"
            | "smbd"
            | "named"
            | "dnsmasq"
            | "exim"
            | "haproxy"
            | "caddy"
            | "traefik"
            | "uwsgi"
            | "memcached"
            | "squid"
            | "elasticsearch"
            | "jetty"
            | "gunicorn"
            | "uvicorn"
            | "hypercorn"
            | "puma"
            | "unicorn"
            | "dovecot"
            | "asterisk"
            | "rabbitmq-server"
            | "influxd"
            | "grafana-server"
            | "grafana"
            | "rsyncd"
            | "slapd"
            | "couchdb"
            | "minio"
    )
}

/// Runs programs of others, which may serve.
fn is_runtime(name: &str) -> bool {
    matches!(
        name,
        "java"
            | "node"
            | "nodejs"
            | "dotnet"
            | "python"
            | "ruby"
            | "beam.smp"
            | "deno"
            | "bun"
            | "perl"
            | "php"
            | "mono"
    )
}

/// Installs, configures, builds or backs up: it writes and reads what others must not.
#[expect(clippy::too_many_lines, reason = "a flat table")]
pub(super) fn is_keeper(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "dpkg",
        "dpkg-deb",
        "apt",
        "apt-get",
        "aptitude",
        "rpm",
        "dnf",
        "yum",
        "zypper",
        "apk",
        "pacman",
        "unattended-upgr",
        "unattended-upgrade",
        "snapd",
        "flatpak",
        "debconf",
        "update-rc.d",
        "deb-systemd-helper",
        "systemctl",
        "systemd-sysusers",
        "systemd-tmpfile",
        "systemd-tmpfiles",
        "adduser",
        "useradd",
        "userdel",
        "usermod",
        "groupadd",
        "groupmod",
        "passwd",
        "chpasswd",
        "chage",
        "vipw",
        "visudo",
        "crontab",
        "update-alternatives",
        "ldconfig",
        "ansible",
        "ansible-playbook",
        "ansible-pull",
        "puppet",
        "puppet-agent",
        "chef-client",
        "salt-minion",
        "salt-call",
        "cloud-init",
        "cfengine",
        "terraform",
        "make",
        "gmake",
        "ninja",
        "cmake",
        "cargo",
        "rustc",
        "mvn",
        "gradle",
        "bazel",
        "npm",
        "yarn",
        "pnpm",
        "pip",
        "pipx",
        "uv",
        "gem",
        "bundle",
        "composer",
        "go",
        "docker",
        "podman",
        "buildah",
        "buildkitd",
        "kaniko",
        "executor",
        "helm",
        "kubectl",
        "restic",
        "borg",
        "borgmatic",
        "duplicity",
        "rsnapshot",
        "bacula-fd",
        "veeamagent",
        "kopia",
        "dumb-restore",
        "logrotate",
        "savelog",
        "rsyslogd",
        "syslog-ng",
        "systemd-journal",
        "journald",
        "systemd-journald",
        "auditd",
        "fluent-bit",
        "fluentd",
        "vector",
        "filebeat",
        "promtail",
        "etckeeper",
        "certbot",
        "acme.sh",
        "dehydrated",
        "Runner.Worker",
        "Runner.Listener",
        "runner",
        "gitlab-runner",
        "jenkins",
        "buildkite-agent",
        "drone",
        "woodpecker-agen",
        "dracut",
        "update-initramfs",
        "mkinitramfs",
        "grub-mkconfig",
        "update-grub",
        "run-parts",
        "pytest",
        "tox",
        "ctest",
        "debootstrap",
        "chezmoi",
        "stow",
    ];
    NAMES.contains(&name)
}

/// Reads everything to keep a copy of it.
pub(super) fn is_backup(name: &str) -> bool {
    matches!(
        name,
        "restic"
            | "borg"
            | "borgmatic"
            | "duplicity"
            | "rsnapshot"
            | "bacula-fd"
            | "kopia"
            | "veeamagent"
            | "amanda"
            | "duplicati"
            | "bareos-fd"
            | "urbackupclientb"
            | "velero"
            | "timeshift"
            | "proxmox-backup"
            | "wal-g"
            | "pgbackrest"
            | "barman"
            | "tarsnap"
            | "backup"
            | "backup.sh"
    )
}

/// Looks at files of any kind at a person's wish.
pub(super) fn is_editor(name: &str) -> bool {
    matches!(
        name,
        "vi" | "vim"
            | "nvim"
            | "vim.basic"
            | "vim.tiny"
            | "nano"
            | "emacs"
            | "ed"
            | "joe"
            | "mcedit"
            | "micro"
            | "code"
            | "sudoedit"
            | "kate"
            | "gedit"
            | "helix"
            | "hx"
    )
}

/// Whether a program deals with containers through the engine's socket.
pub(super) fn runs_containers(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "docker",
        "docker-compose",
        "dockerd",
        "docker-proxy",
        "containerd",
        "containerd-shim",
        "ctr",
        "crictl",
        "nerdctl",
        "podman",
        "buildx",
        "docker-buildx",
        "buildkitd",
        "kubelet",
        "cri-o",
        "crio",
        "traefik",
        "portainer",
        "portainer-agent",
        "watchtower",
        "cadvisor",
        "telegraf",
        "datadog-agent",
        "agent",
        "gitlab-runner",
        "promtail",
        "vector",
        "filebeat",
        "fluent-bit",
        "metricbeat",
        "netdata",
        "node_exporter",
        "dive",
        "lazydocker",
        "ctop",
        "systemd",
        "runc",
        "terraform",
        "act_runner",
        "act",
        "drone",
        "drone-runner-docker",
    ];
    NAMES.contains(&name) || name.starts_with("docker-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(names: &[&str]) -> Above {
        let ancestors: Vec<Ancestor> = names
            .iter()
            .map(|name| Ancestor {
                key: None,
                image: Image {
                    comm: (*name).to_owned(),
                    ..Image::default()
                },
            })
            .collect();
        Above::of(&ancestors)
    }

    #[test]
    fn services_count_near_and_not_beyond_who_starts_for_others() {
        assert!(above(&["sh", "php-fpm8.2"]).service);
        assert!(!above(&["bash", "sshd", "nginx"]).service);
        assert!(!above(&["sh", "dpkg", "apache2"]).service);
        assert!(above(&["java", "tini"]).runtime);
        assert!(above(&["java"]).runtime);
        assert!(!above(&["java", "bash"]).runtime);
        assert!(!above(&["sh", "npm", "node"]).runtime);
    }
}
