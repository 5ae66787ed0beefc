//! Starts the judge, with its prefix kept on disk between starts.
//!
//! The prefix is a thousand tokens and takes seconds to compute, and reading it
//! back milliseconds. One file a model and question, in a directory of ours: what else lies
//! there, or what is wrong with it, costs time and a counter, never a start.

use std::{
    error::Error,
    fs::{DirBuilder, Metadata},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use inwarden_classifier::{
    FoundPrefix, JudgeSetupError, Prompt, Question, QwenJudge, SavedPrefixReport,
};
use inwarden_inference::Scheduler;

use crate::counters::Counter;

/// Bits of a mode with which others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What became of the saved prefixes.
#[derive(Debug, Default)]
pub(crate) struct PrefixCounts {
    pub(crate) used: Counter,
    pub(crate) refused: Counter,
    pub(crate) not_saved: Counter,
}

/// `dir`: where the file is kept; `None` computes the prefix.
pub(crate) fn start_judge(
    scheduler: &Arc<Scheduler>,
    model_id: &str,
    question: Question,
    dir: Option<&Path>,
    counts: &PrefixCounts,
) -> Result<QwenJudge, JudgeSetupError> {
    let prompt = Prompt::of(question);
    let scheduler = Arc::clone(scheduler);
    let Some(dir) = dir else {
        return QwenJudge::new(scheduler, model_id, &prompt);
    };
    if let Err(error) = prepare(dir) {
        tracing::warn!(dir = %dir.display(), %error, "no prefix is kept in this directory");
        counts.not_saved.add_one();
        return QwenJudge::new(scheduler, model_id, &prompt);
    }
    let file = dir.join(match question {
        Question::Exec => format!("{model_id}.prefix"),
        other => format!("{model_id}.{}.prefix", other.name()),
    });
    let (judge, report) = QwenJudge::with_saved_prefix(scheduler, model_id, &prompt, &file)?;
    counts.count(&report, &file);
    Ok(judge)
}

impl PrefixCounts {
    fn count(&self, report: &SavedPrefixReport, file: &Path) {
        let file = file.display();
        match &report.found {
            FoundPrefix::Usable => self.used.add_one(),
            FoundPrefix::Absent | FoundPrefix::NotKept => {}
            FoundPrefix::Refused(error) => {
                self.refused.add_one();
                let error: &dyn Error = error;
                tracing::warn!(%file, error, "a saved prefix was refused and computed anew");
            }
            // Of another release, most likely.
            _ => {
                self.refused.add_one();
                tracing::info!(%file, "a saved prefix is of another prompt: computed anew");
            }
        }
        if let Some(error) = &report.not_saved {
            self.not_saved.add_one();
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

pub(crate) fn is_ours(dir: &Metadata) -> bool {
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
