//! What is wrong with a configuration: every mistake at once, each with its place and a hint.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody set it: the built-in default holds.
    #[default]
    Default,
    /// A file, and the line (from 1) if one line is meant.
    File { path: Arc<PathBuf>, line: Option<usize> },
    /// An environment variable, by name.
    Env(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Origin::File { path, line: None } => write!(f, "{}", path.display()),
            Origin::Env(name) => write!(f, "{name} in the environment"),
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file and line, or the variable, that is wrong.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// All mistakes of a configuration; never empty when returned as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Notes a mistake with what to do about it.
    pub(super) fn add(&mut self, origin: Origin, message: impl Into<String>, hint: impl Into<String>) {
        let hint = hint.into();
        let error = ConfigError { origin, message: message.into(), hint: (!hint.is_empty()).then_some(hint) };
        if !self.0.contains(&error) {
            self.0.push(error);
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "the configuration has {n} mistake{}", if n == 1 { "" } else { "s" })?;
        for error in &self.0 {
            match &error.origin {
                Origin::Default => write!(f, "\n  {}", error.message)?,
                origin => write!(f, "\n  {origin}: {}", error.message)?,
            }
            if let Some(hint) = &error.hint {
                write!(f, "\n      {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The candidate nearest to a misspelt word, if one is near enough to be meant.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|c| (distance(&word, &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= limit || (word.len() >= 4 && (c.contains(word.as_str()) || word.contains(c))))
        .min()
        .map(|(_, c)| c)
}

/// Edits (insert, delete, replace) from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let keys = ["brokers", "group", "properties"];
        assert_eq!(did_you_mean("broker", keys), Some("brokers"));
        assert_eq!(did_you_mean("grupo", keys), None);
        assert_eq!(did_you_mean("gruop", ["group"]), None);
        assert_eq!(did_you_mean("propertys", keys), Some("properties"));
        assert_eq!(did_you_mean("x", keys), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
