//! What secrets are the key to, and whose trade it is to read them.

use crate::reading::{PathClass, class_of};

/// What a secret is the key to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SecretKind {
    Shadow,
    Ssh,
    Cloud,
    Cluster,
    History,
    Browser,
    Environment,
    Application,
}

impl SecretKind {
    pub(super) fn of(path: &str) -> Option<Self> {
        if class_of(path) != PathClass::Secret {
            return None;
        }
        let path = path.to_lowercase();
        let holds = |pieces: &[&str]| pieces.iter().any(|piece| path.contains(piece));
        Some(
            if holds(&["shadow", "opasswd", "master.passwd", "/dev/mem", "kcore"]) {
                Self::Shadow
            } else if holds(&[
                "ssh",
                "id_rsa",
                "id_dsa",
                "id_ecdsa",
                "id_ed25519",
                ".gnupg",
                "secring",
            ]) {
                Self::Ssh
            } else if holds(&[
                ".aws",
                "gcloud",
                ".azure",
                ".boto",
                ".s3cfg",
                "application_default",
            ]) {
                Self::Cloud
            } else if holds(&["kube", "serviceaccount", "/run/secrets/", ".docker/config"]) {
                Self::Cluster
            } else if path.ends_with("_history") {
                Self::History
            } else if holds(&[
                "firefox",
                "chrom",
                "cookies",
                "keyrings",
                "wallet",
                "login data",
                "key4",
                "logins.json",
                "kdbx",
                "password-store",
            ]) {
                Self::Browser
            } else if path.starts_with("/proc/") {
                Self::Environment
            } else {
                Self::Application
            },
        )
    }

    /// Whether reading it is this program's trade.
    #[expect(clippy::too_many_lines, reason = "a flat table")]
    pub(super) fn is_for(self, name: &str) -> bool {
        let trade: &[&str] = match self {
            Self::Shadow => &[
                "sshd",
                "sshd-session",
                "login",
                "su",
                "sudo",
                "passwd",
                "unix_chkpwd",
                "chage",
                "chpasswd",
                "useradd",
                "usermod",
                "userdel",
                "cron",
                "crond",
                "systemd",
                "dovecot",
                "vsftpd",
                "accounts-daemon",
                "polkitd",
                "pwck",
                "lightdm",
                "gdm-session-wor",
                "nscd",
                "systemd-userdbd",
                "systemd-userwork",
                "getent",
                "adduser",
                "newusers",
                "vipw",
                "saslauthd",
                "smbd",
                "auth",
            ],
            Self::Ssh => &[
                "ssh",
                "ssh-add",
                "ssh-agent",
                "scp",
                "sftp",
                "sshd",
                "sshd-session",
                "ssh-keygen",
                "git",
                "rsync",
                "ansible",
                "gpg",
                "gpg-agent",
                "gpgv",
                "dirmngr",
                "gpgsm",
                "mosh",
                "autossh",
                "sshfs",
                "ssh-keyscan",
                "ssh-copy-id",
                "keychain",
                "gnome-keyring-d",
                "dpkg-source",
                "debsign",
                "apt-key",
                "pass",
                "git-crypt",
                "sops",
            ],
            Self::Cloud => &[
                "aws",
                "gcloud",
                "gsutil",
                "az",
                "terraform",
                "rclone",
                "s3cmd",
                "packer",
                "pulumi",
                "boto",
                "eksctl",
                "kubectl",
                "bq",
                "aws-vault",
                "ecs-cli",
                "restic",
                "s5cmd",
                "mc",
            ],
            Self::Cluster => &[
                "kubectl",
                "helm",
                "kubelet",
                "kube-proxy",
                "kube-apiserver",
                "kube-controller",
                "kube-scheduler",
                "coredns",
                "k9s",
                "flux",
                "argocd",
                "skaffold",
                "kustomize",
                "stern",
                "docker",
                "podman",
                "buildah",
                "skopeo",
                "crane",
                "etcd",
                "kubeadm",
                "k3s",
                "calico-node",
                "cilium-agent",
                "prometheus",
                "ingress",
                "nginx-ingress-c",
                "docker-credential",
                "java",
                "node",
                "python",
                "dotnet",
                "ruby",
                "buildkitd",
                "vault",
                "traefik",
                "postgres",
                "mysqld",
                "mariadbd",
                "redis-server",
                "controller",
                "manager",
                "nginx",
            ],
            Self::History => &[
                "bash", "zsh", "sh", "fish", "psql", "mysql", "python", "ash", "atuin",
            ],
            Self::Browser => &[
                "firefox",
                "firefox-esr",
                "chrome",
                "chromium",
                "google-chrome",
                "gnome-keyring-d",
                "keepassxc",
                "brave",
                "thunderbird",
                "seahorse",
                "pass",
                "bitcoind",
                "geth",
                "secret-tool",
            ],
            Self::Environment => &[
                "systemd",
                "ps",
                "gdb",
                "htop",
                "top",
                "systemctl",
                "pgrep",
                "pkill",
                "lsof",
            ],
            Self::Application => &[
                "php",
                "php-fpm",
                "php-cgi",
                "apache",
                "httpd",
                "nginx",
                "node",
                "python",
                "ruby",
                "java",
                "gunicorn",
                "uwsgi",
                "uvicorn",
                "puma",
                "dotnet",
                "npm",
                "yarn",
                "pnpm",
                "pip",
                "twine",
                "psql",
                "pg_dump",
                "pg_basebackup",
                "mysql",
                "mysqldump",
                "curl",
                "wget",
                "git",
                "git-credential",
                "vault",
                "openvpn",
                "wg",
                "wg-quick",
                "slapd",
                "haproxy",
                "dovecot",
                "exim",
                "postfix",
                "master",
                "smtpd",
                "sssd",
                "krb5kdc",
                "kinit",
                "klist",
                "docker",
                "docker-compose",
                "artisan",
                "composer",
                "celery",
                "certbot",
                "stunnel",
                "openssl",
                "caddy",
                "traefik",
                "httpd-prefork",
                "lighttpd",
                "bundle",
                "cargo",
                "mutt",
                "msmtp",
                "sendmail",
                "fetchmail",
                "grafana",
                "grafana-server",
                "elasticsearch",
                "beam.smp",
            ],
        };
        trade.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_for_those_whose_trade_they_are() {
        let kind = |path: &str| SecretKind::of(path);
        assert_eq!(kind("/etc/shadow"), Some(SecretKind::Shadow));
        assert_eq!(kind("/home/u/.ssh/id_ed25519"), Some(SecretKind::Ssh));
        assert_eq!(kind("/root/.aws/credentials"), Some(SecretKind::Cloud));
        assert_eq!(kind("/root/.bash_history"), Some(SecretKind::History));
        assert_eq!(kind("/srv/app/.env"), Some(SecretKind::Application));
        assert_eq!(kind("/etc/hosts"), None);
        assert!(SecretKind::Ssh.is_for("ssh") && !SecretKind::Ssh.is_for("curl"));
    }
}
