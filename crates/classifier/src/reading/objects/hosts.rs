//! Hosts and addresses in words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AddressClass {
    Loopback,
    /// Private, link-local and other addresses that do not leave the site.
    Private,
    /// The service that hands out a cloud machine's credentials.
    Metadata,
    Public,
}

/// A host that a word names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(AddressClass),
    /// A name, lower case.
    Name(String),
}

/// A URL as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
}

/// The first URL in a word.
pub(crate) fn url_of(word: &str) -> Option<Url<'_>> {
    let (before, rest) = word.split_once("://")?;
    let scheme_start = before
        .rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-')))
        .map_or(0, |at| {
            at + before[at..].chars().next().map_or(1, char::len_utf8)
        });
    let scheme = &before[scheme_start..];
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>' | '|' | '`'))
        .unwrap_or(rest.len());
    let (authority, path) = rest[..end].split_at(rest[..end].find(['/', '?', '#']).unwrap_or(end));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    };
    (!scheme.is_empty() && !host.is_empty()).then_some(Url { scheme, host, path })
}

/// The hosts in a word: of URLs, `user@host:path`, addresses and bare names that
/// end in a domain.
pub(crate) fn hosts_in(word: &str) -> Vec<Host> {
    if let Some(url) = url_of(word) {
        return vec![host_of(url.host)];
    }
    if let Some(peer) = word
        .strip_prefix("/dev/tcp/")
        .or_else(|| word.strip_prefix("/dev/udp/"))
    {
        return vec![host_of(peer.split('/').next().unwrap_or(peer))];
    }
    let mut found = Vec::new();
    for piece in word.split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':')))
    {
        let bare = piece.trim_matches([':', '.']);
        let name = bare.split(':').next().unwrap_or(bare);
        if let Some(class) = address_class(bare).or_else(|| address_class(name)) {
            found.push(Host::Address(class));
        } else if name == "localhost" {
            found.push(Host::Address(AddressClass::Loopback));
        }
    }
    if found.is_empty() && is_domain(word) {
        found.push(host_of(word));
    }
    if found.is_empty()
        && let Some((user, rest)) = word.split_once('@')
        && !user.is_empty()
        && let Some(host) = rest
            .split([':', '/'])
            .next()
            .filter(|host| !host.is_empty() && !host.contains('='))
    {
        found.push(host_of(host));
    }
    found
}

fn host_of(host: &str) -> Host {
    let lower = host.to_lowercase();
    match address_class(&lower) {
        Some(class) => Host::Address(class),
        None if lower == "localhost" || lower.ends_with(".localhost") => {
            Host::Address(AddressClass::Loopback)
        }
        None if lower == "metadata.google.internal" => Host::Address(AddressClass::Metadata),
        None => Host::Name(lower),
    }
}

/// A word that can only be a host's name: letters, dots, a known kind of ending.
fn is_domain(word: &str) -> bool {
    const ENDINGS: [&str; 22] = [
        "com", "net", "org", "io", "dev", "example", "test", "internal", "local", "lan", "info",
        "biz", "ru", "cn", "xyz", "top", "site", "cloud", "de", "me", "co", "invalid",
    ];
    let name = word.split(':').next().unwrap_or(word);
    !name.contains('/')
        && name.rsplit_once('.').is_some_and(|(rest, ending)| {
            !rest.is_empty() && ENDINGS.contains(&ending.to_lowercase().as_str())
        })
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// The class of a numeric address, also written as one number or in octal or hex.
fn address_class(text: &str) -> Option<AddressClass> {
    if let Ok(address) = text.parse::<IpAddr>() {
        // `::` and `::1` as words are rare; a bare `::` in other text is none.
        return (text.len() > 2).then(|| class_of(address));
    }
    if let Some(hex) = text.strip_prefix("0x")
        && hex.len() == 8
    {
        return u32::from_str_radix(hex, 16)
            .ok()
            .map(|n| class_of(IpAddr::V4(Ipv4Addr::from(n))));
    }
    None
}

fn class_of(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => class_of_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => class_of_v4(v4),
            None => class_of_v6(v6),
        },
    }
}

fn class_of_v4(address: Ipv4Addr) -> AddressClass {
    const METADATA: [Ipv4Addr; 3] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 170, 2),
        Ipv4Addr::new(100, 100, 100, 200),
    ];
    let shared = address.octets()[0] == 100 && (64..128).contains(&address.octets()[1]);
    if METADATA.contains(&address) {
        AddressClass::Metadata
    } else if address.is_loopback() || address.is_unspecified() {
        AddressClass::Loopback
    } else if address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || shared
    {
        AddressClass::Private
    } else {
        AddressClass::Public
    }
}

fn class_of_v6(address: Ipv6Addr) -> AddressClass {
    if address.is_loopback() || address.is_unspecified() {
        AddressClass::Loopback
    } else if address.is_unique_local() || address.is_unicast_link_local() || address.is_multicast()
    {
        AddressClass::Private
    } else {
        AddressClass::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_classed_in_every_spelling() {
        use AddressClass::*;
        for (word, class) in [
            ("http://127.0.0.1:8080/x", Loopback),
            ("localhost:80", Loopback),
            ("10.1.2.3", Private),
            ("http://192.168.1.4/x", Private),
            ("root@172.16.0.9:/tmp", Private),
            ("169.254.169.254", Metadata),
            ("http://metadata.google.internal/x", Metadata),
            ("203.0.113.9:4444", Public),
            ("0xcb007109", Public),
            ("http://[2001:db8::1]/x", Public),
            ("--host=198.51.100.1", Public),
            ("/dev/tcp/203.0.113.9/443", Public),
        ] {
            assert_eq!(hosts_in(word), [Host::Address(class)], "{word}");
        }
    }

    #[test]
    fn names_count_as_hosts_where_they_are_hosts() {
        let name = |n: &str| Host::Name(n.to_owned());
        assert_eq!(
            hosts_in("https://u:p@Mirror.example/x?y"),
            [name("mirror.example")]
        );
        assert_eq!(hosts_in("git@code.example:a/b.git"), [name("code.example")]);
        assert_eq!(hosts_in("mirror.example"), [name("mirror.example")]);
        for word in [
            "1.2.3",
            "main.rs",
            "v1.2",
            "a=b",
            "-p",
            "2024-01-02",
            "src/a.c",
        ] {
            assert_eq!(hosts_in(word), [], "{word}");
        }
    }
}
