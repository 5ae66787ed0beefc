//! What stands around an event and is not written by it: its ancestors.
//!
//! These say what is usual here. They may excuse, so they come from the process
//! tree alone and never from the text that is judged.

/// Classes of the ancestors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// A package manager or a maintainer's script is at work.
    pub(crate) under_package_manager: bool,
    /// A build or a test run is at work.
    pub(crate) under_build: bool,
    /// The parent or its parent serves a network.
    pub(crate) under_service: bool,
}

impl Surroundings {
    /// Of the ancestors' names, nearest first.
    pub(crate) fn of_parents(parents: &[&str]) -> Self {
        let any = |names: &[&str]| {
            parents
                .iter()
                .take(8)
                .any(|parent| names.contains(&stem(parent)))
        };
        Self {
            under_package_manager: any(&[
                "dpkg",
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
                "pip",
                "npm",
            ]),
            under_build: any(&[
                "make", "gmake", "ninja", "cmake", "cargo", "rustc", "gcc", "cc", "g", "clang",
                "go", "mvn", "gradle", "bazel", "meson", "pytest", "ctest", "tox",
            ]),
            under_service: parents.iter().take(2).any(|parent| is_service(parent)),
        }
    }
}

fn stem(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))
}

fn is_service(name: &str) -> bool {
    matches!(
        stem(name),
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
            | "redis-server"
            | "mongod"
            | "vsftpd"
            | "proftpd"
            | "smbd"
            | "named"
            | "dnsmasq"
            | "exim"
            | "haproxy"
            | "caddy"
            | "w3wp"
            | "uwsgi"
            | "memcached"
            | "squid"
            | "elasticsearch"
            | "jetty"
            | "gunicorn"
            | "puma"
            | "unicorn"
            | "master"
            | "dovecot"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_are_classed_by_name_and_distance() {
        let of = |parents: &[&str]| Surroundings::of_parents(parents);
        assert!(of(&["sh", "dpkg"]).under_package_manager);
        assert!(of(&["sh", "make", "bash"]).under_build);
        assert!(of(&["php-fpm8.2"]).under_service);
        assert!(!of(&["bash", "sshd", "nginx"]).under_service);
        assert_eq!(of(&["bash"]), Surroundings::default());
    }
}
