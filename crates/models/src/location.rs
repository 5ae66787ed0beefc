//! The rule for where models are kept when nobody says otherwise.
//!
//! Pure: the caller reads the environment and passes it in, so that the command
//! line and the Python package cannot drift apart.

use std::ffi::OsString;
use std::path::PathBuf;

/// The environment values the cache directory depends on, as the caller read them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheDirQuery {
    /// `INWARDEN_MODELS`: the directory itself.
    pub inwarden_models: Option<OsString>,
    /// `XDG_CACHE_HOME`: the user's cache directory, absolute.
    pub xdg_cache_home: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
}

/// Gives the models directory: `$INWARDEN_MODELS`, else
/// `$XDG_CACHE_HOME/inwarden/models`, else `$HOME/.cache/inwarden/models`.
///
/// Empty values count as unset, and so does a relative `XDG_CACHE_HOME`, as the
/// XDG Base Directory Specification 0.8 asks. `None` when nothing is set.
///
/// # Examples
///
/// ```
/// use inwarden_models::{CacheDirQuery, default_cache_dir};
///
/// let query = CacheDirQuery { home: Some("/home/ada".into()), ..CacheDirQuery::default() };
/// assert_eq!(default_cache_dir(query), Some("/home/ada/.cache/inwarden/models".into()));
/// ```
#[must_use]
pub fn default_cache_dir(query: CacheDirQuery) -> Option<PathBuf> {
    let set = |value: Option<OsString>| value.filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = set(query.inwarden_models) {
        return Some(dir);
    }
    let cache = set(query.xdg_cache_home)
        .filter(|dir| dir.is_absolute())
        .or_else(|| set(query.home).map(|home| home.join(".cache")))?;
    Some(cache.join("inwarden").join("models"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(models: &str, xdg: &str, home: &str, expected: Option<&str>) {
        let query = CacheDirQuery {
            inwarden_models: Some(models.into()),
            xdg_cache_home: Some(xdg.into()),
            home: Some(home.into()),
        };
        assert_eq!(default_cache_dir(query), expected.map(PathBuf::from));
    }

    #[test]
    fn the_most_specific_variable_wins() {
        check("/m", "/x", "/h", Some("/m"));
        check("", "/x", "/h", Some("/x/inwarden/models"));
        check("", "", "/h", Some("/h/.cache/inwarden/models"));
        check("", "", "", None);
    }

    #[test]
    fn a_relative_xdg_cache_home_is_ignored() {
        check("", "x", "/h", Some("/h/.cache/inwarden/models"));
    }

    #[test]
    fn nothing_set_gives_none() {
        assert_eq!(default_cache_dir(CacheDirQuery::default()), None);
    }
}
