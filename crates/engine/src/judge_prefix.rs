//! Starts the judge, with its prefix kept on disk between starts.
//!
//! The prefix is a thousand tokens and takes seconds to compute, and reading it
//! back milliseconds. One file a model, in a directory of ours: what else lies
//! there, or what is wrong with it, costs time and a counter, never a start.

use std::{
    error::Error,
    fs::{DirBuilder, Metadata},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use inwarden_classifier::{FoundPrefix, JudgeSetupError, Prompt, QwenJudge, SavedPrefixReport};
use inwarden_inference::Scheduler;

/// Bits of a mode with which others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What became of the saved prefix, as counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PrefixCounts {
    pub(crate) used: u64,
    pub(crate) refused: u64,
    pub(crate) not_saved: u64,
}

/// `dir`: where the file is kept; `None` computes the prefix.
pub(crate) fn start_judge(
    scheduler: &Arc<Scheduler>,
    model_id: &str,
    dir: Option<&Path>,
) -> Result<(QwenJudge, PrefixCounts), JudgeSetupError> {
    let prompt = Prompt::shipped();
    let mut counts = PrefixCounts::default();
    let scheduler = Arc::clone(scheduler);
    let Some(dir) = dir else {
        let judge = QwenJudge::new(scheduler, model_id, &prompt)?;
        return Ok((judge, counts));
    };
    if let Err(error) = prepare(dir) {
        tracing::warn!(dir = %dir.display(), %error, "no prefix is kept in this directory");
        counts.not_saved = 1;
        let judge = QwenJudge::new(scheduler, model_id, &prompt)?;
        return Ok((judge, counts));
    }
    let file = dir.join(format!("{model_id}.prefix"));
    let (judge, report) = QwenJudge::with_saved_prefix(scheduler, model_id, &prompt, &file)?;
    counts.count(&report, &file);
    Ok((judge, counts))
}

impl PrefixCounts {
    fn count(&mut self, report: &SavedPrefixReport, file: &Path) {
        let file = file.display();
        match &report.found {
            FoundPrefix::Usable => self.used = 1,
            FoundPrefix::Absent => {}
            FoundPrefix::Refused(error) => {
                self.refused = 1;
                let error: &dyn Error = error;
                tracing::warn!(%file, error, "a saved prefix was refused and computed anew");
            }
            // Of another release, most likely.
            _ => {
                self.refused = 1;
                tracing::info!(%file, "a saved prefix is of another prompt: computed anew");
            }
        }
        if let Some(error) = &report.not_saved {
            self.not_saved = 1;
            let error: &dyn Error = error;
            tracing::warn!(%file, error, "the prefix could not be saved");
        }
    }
}

/// Creates `dir` where it is absent, for us alone.
///
/// A file in it decides what the judge answers, so only we or root may be able
/// to put one there.
fn prepare(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if is_ours(&std::fs::metadata(dir)?) {
        return Ok(());
    }
    Err(std::io::Error::other("others may write it"))
}

fn is_ours(dir: &Metadata) -> bool {
    let owner = dir.uid();
    (owner == 0 || owner == rustix::process::geteuid().as_raw())
        && dir.mode() & WRITABLE_BY_OTHERS == 0
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_new_directory_is_private_and_one_that_others_may_write_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/prefixes");
        prepare(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        prepare(&dir).unwrap();
        for mode in [0o770, 0o702] {
            std::fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
            prepare(&dir).unwrap_err();
        }
        let file = parent.path().join("file");
        std::fs::write(&file, b"").unwrap();
        prepare(&file).unwrap_err();
    }
}
