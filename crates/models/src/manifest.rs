//! The list of known models, parsed once and checked as a whole.
//!
//! The shipped list is `models/manifest.toml` in the repository's root.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::Sha256;

const SCHEMA: &str = "inwarden.models/1";
const BUILTIN: &str = include_str!("../manifest.toml");

/// What is wrong with a manifest; a bad one is refused as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not TOML, or a key is missing, unknown or of the wrong type.
    #[error("the manifest does not parse")]
    Syntax(#[from] toml::de::Error),
    /// Written for another version of this program.
    #[error("the manifest has schema `{found}`, this program reads `{SCHEMA}`")]
    Schema {
        /// The schema it names.
        found: String,
    },
    /// A value is outside what is allowed.
    #[error("model `{model}`: {problem}")]
    Value {
        /// The model it belongs to.
        model: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The known models.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub(crate) models: Vec<ModelEntry>,
}

/// One model: its files and where they can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// The id that commands and configuration use; also its directory's name.
    pub id: String,
    /// One line for a human.
    pub about: String,
    /// SPDX licence expression of the weights.
    pub licence: String,
    /// Where the Hugging Face hub has it.
    pub hub: Option<HubEntry>,
    /// Its files, in the order a loader wants them. At least one.
    pub files: Vec<FileEntry>,
}

/// A repository of the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubEntry {
    /// `owner/name`.
    pub repo: String,
    /// The commit, 40 hexadecimal digits.
    pub revision: String,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its plain file name, in the cache as on the hub.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// What its content must hash to.
    pub sha256: Sha256,
    /// Pieces carried by Python wheels, to be joined in this order; empty if none.
    pub parts: Vec<PartEntry>,
}

/// A member of a Python wheel that is a file or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartEntry {
    /// The package's name in normal form.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// The path inside the wheel.
    pub member: String,
    /// The unpacked size in bytes.
    pub size: u64,
    /// What the unpacked bytes must hash to.
    pub sha256: Sha256,
}

impl Manifest {
    /// The manifest this program was built with.
    #[must_use]
    pub fn builtin() -> Self {
        Self::parse(BUILTIN).expect("the shipped manifest is parsed by a test of this crate")
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] if any part of it is not as the schema asks; names are
    /// restricted so that none of them can lead out of the cache directory or
    /// be taken for an option by `pip`.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let file: ManifestFile = toml::from_str(text)?;
        if file.schema != SCHEMA {
            return Err(ManifestError::Schema { found: file.schema });
        }
        let mut seen = BTreeSet::new();
        let models = file
            .model
            .into_iter()
            .map(|model| {
                if !seen.insert(model.id.clone()) {
                    return Err(ManifestError::Value {
                        model: model.id,
                        problem: "the id is listed twice".to_owned(),
                    });
                }
                model.checked()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { models })
    }

    /// All models, in the manifest's order.
    #[must_use]
    pub fn models(&self) -> &[ModelEntry] {
        &self.models
    }

    /// The model with this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&ModelEntry> {
        self.models.iter().find(|model| model.id == id)
    }
}

impl ModelEntry {
    /// The size of all files together, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    schema: String,
    model: Vec<ModelTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    id: String,
    about: String,
    licence: String,
    hub: Option<HubEntry>,
    file: Vec<FileTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    name: String,
    size: u64,
    sha256: String,
    #[serde(default)]
    parts: Vec<PartTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartTable {
    package: String,
    version: String,
    member: String,
    size: u64,
    sha256: String,
}

impl ModelTable {
    fn checked(self) -> Result<ModelEntry, ManifestError> {
        let model = self.id.clone();
        let refuse = |problem: String| ManifestError::Value {
            model: model.clone(),
            problem,
        };
        check_name("id", &self.id).map_err(refuse)?;
        if let Some(hub) = &self.hub {
            check_hub(hub).map_err(refuse)?;
        }
        if self.file.is_empty() {
            return Err(refuse("it has no files".to_owned()));
        }
        let files = self
            .file
            .into_iter()
            .map(FileTable::checked)
            .collect::<Result<_, _>>()
            .map_err(refuse)?;
        Ok(ModelEntry {
            id: self.id,
            about: self.about,
            licence: self.licence,
            hub: self.hub,
            files,
        })
    }
}

impl FileTable {
    fn checked(self) -> Result<FileEntry, String> {
        check_name("file name", &self.name)?;
        let sha256 = parse_sha256(&self.name, &self.sha256)?;
        let parts: Vec<PartEntry> = self
            .parts
            .into_iter()
            .map(PartTable::checked)
            .collect::<Result<_, _>>()?;
        let joined = parts
            .iter()
            .try_fold(0_u64, |sum, part| sum.checked_add(part.size))
            .ok_or_else(|| format!("the parts of `{}` are too large", self.name))?;
        if !parts.is_empty() && joined != self.size {
            return Err(format!(
                "the parts of `{}` are {joined} bytes, the file has {}",
                self.name, self.size
            ));
        }
        Ok(FileEntry {
            name: self.name,
            size: self.size,
            sha256,
            parts,
        })
    }
}

impl PartTable {
    fn checked(self) -> Result<PartEntry, String> {
        check_name("package", &self.package)?;
        check_name("version", &self.version)?;
        let sha256 = parse_sha256(&self.member, &self.sha256)?;
        Ok(PartEntry {
            package: self.package,
            version: self.version,
            member: self.member,
            size: self.size,
            sha256,
        })
    }
}

/// A name that is one path component, no option and no version operator.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(legal) {
        return Ok(());
    }
    Err(format!(
        "the {what} `{name}` has characters other than letters, digits, `.`, `_` and `-`"
    ))
}

fn check_hub(hub: &HubEntry) -> Result<(), String> {
    let (owner, name) = hub
        .repo
        .split_once('/')
        .ok_or_else(|| format!("the hub repository `{}` is not `owner/name`", hub.repo))?;
    check_name("hub owner", owner)?;
    check_name("hub repository", name)?;
    if hub.revision.len() == 40 && hub.revision.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(format!(
        "the hub revision `{}` is not a full commit",
        hub.revision
    ))
}

fn parse_sha256(what: &str, text: &str) -> Result<Sha256, String> {
    text.parse().map_err(|error| format!("`{what}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    fn manifest(id: &str, name: &str, extra: &str) -> String {
        format!(
            "schema = \"inwarden.models/1\"\n[[model]]\nid = \"{id}\"\nabout = \"a\"\n\
             licence = \"l\"\n[[model.file]]\nname = \"{name}\"\nsize = 3\nsha256 = \"{ZEROS}\"\n{extra}"
        )
    }

    fn check_refused(text: &str, expected: &str) {
        let error = Manifest::parse(text).unwrap_err();
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message.push_str(&source.to_string());
        }
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn the_shipped_manifest_parses_and_names_the_four_models() {
        let ids: Vec<_> = Manifest::builtin()
            .models()
            .iter()
            .map(|m| m.id.clone())
            .collect();
        let expected = [
            "qwen2.5-7b-instruct-q4_k_m",
            "qwen2.5-coder-1.5b-instruct-q4_k_m",
            "qwen2.5-coder-0.5b-instruct-q4_k_m",
            "all-minilm-l6-v2",
        ];
        assert_eq!(ids, expected);
    }

    #[test]
    fn every_shipped_model_is_on_the_hub_and_the_small_ones_in_wheels_too() {
        for model in Manifest::builtin().models() {
            assert!(model.hub.is_some(), "{}", model.id);
            let small = model.size() < 2_000_000_000;
            assert_eq!(
                model.files.iter().all(|f| !f.parts.is_empty()),
                small,
                "{}",
                model.id
            );
        }
    }

    #[test]
    fn names_that_could_leave_the_cache_or_look_like_options_are_refused() {
        for name in ["../x", "a/b", "-r", "", ".hidden", "a b"] {
            check_refused(&manifest("m", name, ""), "characters other than");
            check_refused(&manifest(name, "f", ""), "characters other than");
        }
    }

    #[test]
    fn unknown_keys_schemas_and_sizes_that_do_not_add_up_are_refused() {
        check_refused(&manifest("m", "f", "sise = 1"), "unknown field `sise`");
        check_refused(
            &manifest("m", "f", "").replace("models/1", "models/2"),
            "models/2",
        );
        let part = format!(
            "parts = [{{ package = \"p\", version = \"1\", member = \"p/f\", size = 2, sha256 = \"{ZEROS}\" }}]"
        );
        check_refused(
            &manifest("m", "f", &part),
            "the parts of `f` are 2 bytes, the file has 3",
        );
        let overflowing = part.replace("size = 2", "size = 18446744073709551615");
        assert!(Manifest::parse(&manifest("m", "f", &overflowing)).is_err());
    }
}
