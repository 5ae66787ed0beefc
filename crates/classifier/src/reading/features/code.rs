//! Program text of other languages: what its names and literals show.

use super::{Features, flag};
use crate::reading::{
    Language, Layer, code,
    objects::{AddressClass, Host, PathClass, class_of, hosts_in, paths_in},
};

#[expect(
    clippy::too_many_lines,
    reason = "a flat table of names, read straight through"
)]
pub(super) fn mark(layer: &Layer, out: &mut Features) {
    if matches!(layer.language, Language::Shell | Language::Data) {
        return;
    }
    let text = layer.lower.as_str();
    let says = |pieces: &[&str]| pieces.iter().any(|piece| text.contains(piece));
    let opens_socket = says(&[
        "socket.socket",
        "socket.create_connection",
        "socket.socket(",
        "tcpsocket",
        "fsockopen",
        "net.connect",
        "net.socket",
        "io::socket",
        "socket(s",
        "socket.tcp",
        "/inet/tcp",
        "pfsockopen",
        "stream_socket_client",
        "createconnection(",
    ]);
    let starts_program = says(&[
        "pty.spawn",
        "subprocess",
        "os.system",
        "popen",
        "exec(",
        "exec \"",
        "exec'",
        "exec{",
        "execve",
        "child_process",
        "/bin/sh",
        "/bin/bash",
        "shell_exec",
        "spawn(",
        "system(",
    ]);
    let ties = says(&[
        "dup2",
        "pty.spawn",
        "stdin",
        "fileno",
        ">&",
        "0<&",
        ".pipe(",
        "open(stdin",
        "sockfd",
        "<&3",
        "$fh",
        "fds",
    ]);
    let literals = code::literals(&layer.text);
    let mut is_remote = false;
    for literal in &literals {
        for path in paths_in(&literal.text) {
            match class_of(path) {
                PathClass::Secret => {
                    out.secret_named = 1.0;
                    out.secret_read = 1.0;
                }
                PathClass::Persistence if writes(text) => out.persistence_written = 1.0,
                PathClass::Sudoers if writes(text) => out.sudoers_changed = 1.0,
                PathClass::Accounts if writes(text) => out.accounts_written = 1.0,
                PathClass::KernelDoor if writes(text) => out.host_reached = 1.0,
                _ => {}
            }
        }
        for host in hosts_in(&literal.text) {
            match host {
                Host::Address(AddressClass::Public) => out.address_public = 1.0,
                Host::Address(AddressClass::Private) => out.address_private = 1.0,
                Host::Address(AddressClass::Metadata) => out.metadata_asked = 1.0,
                Host::Address(AddressClass::Loopback) => {
                    out.address_loopback = 1.0;
                    continue;
                }
                Host::Name(_) => {}
            }
            is_remote = true;
        }
    }
    out.shell_on_socket = flag(opens_socket && starts_program && ties);
    let fetches = says(&[
        "urlopen",
        "requests.get",
        "urlretrieve",
        "http.get",
        "https.get",
        "lwp::simple",
        "net/http",
        "open-uri",
        "file_get_contents('http",
        "file_get_contents(\"http",
        "fetch(",
    ]);
    let runs_text = says(&[
        "exec(",
        "eval(",
        "compile(",
        "new function(",
        "instance_eval",
        "eval ",
        "marshal.loads",
    ]);
    out.fetch_to_interpreter = flag(fetches && runs_text && !says(&["127.0.0.1", "localhost"]));
    let decodes = says(&[
        "b64decode",
        "base64",
        "atob(",
        "fromhex",
        "unhexlify",
        "codecs.decode",
        "rot13",
        "zlib.decompress",
        "gzinflate",
        "pack(",
        "decode64",
        "'base64'",
        "unpack(",
    ]);
    out.decode_to_interpreter = flag(decodes && runs_text);
    let sends = says(&[
        "requests.post",
        "requests.put",
        "sendall(",
        ".send(",
        "urlopen(",
        "http.request",
        "net::http.post",
        "smtplib",
        "storbinary",
        "curl_exec",
    ]);
    out.data_sent = flag(
        sends
            && (is_remote || says(&["http://", "https://"]))
            && says(&["open(", "read(", "file_get_contents", "readfile", "environ"]),
    );
    out.secret_sent = out.secret_read * out.data_sent;
    out.set_id = flag(says(&[
        "setuid(0)",
        "os.setuid(0",
        "setreuid(0",
        "process::uid.change_privilege(0",
        "posix_setuid(0",
        "$<=0",
        "s_isuid",
    ]));
    out.memory_executed = flag(says(&["memfd_create", "sys_memfd"]));
    out.process_inspected = flag(
        says(&["ptrace(", "process_vm_writev", "/mem\"", "/mem'"]) && says(&["/proc/", "ptrace("]),
    );
}

fn writes(text: &str) -> bool {
    [
        ",'w",
        ", 'w",
        ",\"w",
        ", \"w",
        ",'a",
        ", 'a",
        ",\"a",
        ", \"a",
        ".write",
        "writefile",
        "appendfile",
        "file_put_contents",
        "'>",
        "\">",
        "shutil.copy",
        "os.symlink",
    ]
    .iter()
    .any(|piece| text.contains(piece))
}
