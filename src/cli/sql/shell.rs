//! The interactive shell: history, completion, statements over several lines until `;`.

use std::borrow::Cow;

use anyhow::Context as _;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, EditMode, Editor, Helper};

use super::engine::Engine;
use super::render::Target;
use super::{Format, statements};
use crate::config::state_dir;

const HELP: &str = "\
A statement ends with `;` and may take several lines. Tab completes, the arrow keys go through the history.
  \\d           the tables
  \\d NAME      the columns of a table
  \\f FORMAT    print rows as table, csv or json
  \\x           each row as lines of its own, on and off
  \\? or \\h     this help
  \\q           leave, as Ctrl-D; Ctrl-C drops the line, or stops the statement that runs";

const KEYWORDS: [&str; 48] = [
    "select",
    "from",
    "where",
    "group",
    "by",
    "order",
    "having",
    "limit",
    "offset",
    "join",
    "left",
    "right",
    "inner",
    "full",
    "on",
    "using",
    "as",
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "like",
    "between",
    "case",
    "when",
    "then",
    "else",
    "end",
    "distinct",
    "union",
    "all",
    "with",
    "desc",
    "asc",
    "show",
    "tables",
    "describe",
    "explain",
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "cast",
    "date_trunc",
    "interval",
];

/// Reads and runs statements until the user leaves.
pub(super) async fn run(engine: Engine, mut target: Target) -> anyhow::Result<()> {
    target.timings = true;
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .edit_mode(EditMode::Emacs)
        .auto_add_history(false)
        .max_history_size(10_000)
        .context("history")?
        .build();
    let mut editor: Editor<Words, FileHistory> =
        Editor::with_config(config).context("this terminal is not supported")?;
    let history = history_file();
    if let Some(file) = &history {
        // There is none before the first use.
        let _absent = editor.load_history(file);
    }
    editor.set_helper(Some(Words { words: engine.words().await }));
    println!("{}. End a statement with `;`, \\? for help, \\q to leave.", engine.place());
    let prompt = format!("{}> ", engine.name());
    loop {
        match editor.readline(&prompt) {
            Ok(text) => {
                let text = text.trim();
                if text.is_empty() {
                    continue;
                }
                // A history that cannot be kept is no reason not to run the statement.
                let _kept = editor.add_history_entry(text);
                if let Some(file) = &history {
                    let _kept = editor.append_history(file);
                }
                if let Some(command) = text.strip_prefix('\\') {
                    if !meta(command.trim_end_matches(';').trim(), &engine, &mut target).await {
                        return Ok(());
                    }
                    continue;
                }
                for statement in statements::split(text).0 {
                    if matches!(statement.to_lowercase().as_str(), "quit" | "exit") {
                        return Ok(());
                    }
                    if !interruptible(engine.run(&statement, &target)).await {
                        break;
                    }
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(e).context("the terminal cannot be read"),
        }
    }
}

/// Runs to the end or until Ctrl-C; an error is printed. True when it went well.
async fn interruptible(work: impl Future<Output = anyhow::Result<()>>) -> bool {
    tokio::select! {
        result = work => match result {
            Ok(()) => true,
            Err(e) => {
                eprintln!("{e:#}");
                false
            }
        },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("stopped");
            false
        }
    }
}

/// Runs a backslash command; false to leave.
async fn meta(command: &str, engine: &Engine, target: &mut Target) -> bool {
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    match (name, rest.trim()) {
        ("q", _) => return false,
        ("?" | "h", _) => println!("{HELP}"),
        ("d", table) => {
            interruptible(engine.describe((!table.is_empty()).then_some(table), target)).await;
        }
        ("x", _) => {
            target.vertical = !target.vertical;
            println!("rows stand {}", if target.vertical { "one column a line" } else { "one a line" });
        }
        ("f", "table") => target.format = Format::Table,
        ("f", "csv") => target.format = Format::Csv,
        ("f", "json") => target.format = Format::Json,
        ("f", _) => eprintln!("\\f table, \\f csv or \\f json"),
        (other, _) => eprintln!("there is no \\{other}; \\? lists the commands"),
    }
    true
}

/// The history's file, in the user's state folder, readable by the user alone.
fn history_file() -> Option<std::path::PathBuf> {
    let folder = state_dir()?;
    std::fs::create_dir_all(&folder).ok()?;
    let file = folder.join("sql_history");
    if !file.exists() {
        use std::os::unix::fs::OpenOptionsExt;
        // rustyline wants its own first line, or an empty file.
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&file).ok()?;
    }
    Some(file)
}

/// What the shell completes: tables, columns, keywords, backslash commands.
struct Words {
    words: Vec<String>,
}

impl Words {
    fn matching(&self, prefix: &str) -> Vec<String> {
        if prefix.is_empty() {
            return Vec::new();
        }
        let lower = prefix.to_lowercase();
        let upper = prefix.chars().any(|c| c.is_ascii_uppercase()) && !prefix.chars().any(|c| c.is_ascii_lowercase());
        let keywords = KEYWORDS.iter().map(|k| if upper { Cow::Owned(k.to_uppercase()) } else { Cow::Borrowed(*k) });
        let all = self.words.iter().map(|w| Cow::Borrowed(w.as_str())).chain(keywords);
        // A table is found by its own name too, without its layer.
        let bare = |w: &str| w.rsplit('.').next().is_some_and(|last| last.to_lowercase().starts_with(&lower));
        all.filter(|w| w.to_lowercase().starts_with(&lower) || bare(w)).map(Cow::into_owned).collect()
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &rustyline::Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let start = line[..at].char_indices().rev().take_while(|(_, c)| word(*c)).last().map_or(at, |(i, _)| i);
        Ok((start, self.matching(&line[start..at])))
    }
}

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let whole = text.is_empty()
            || text.starts_with('\\')
            || matches!(text.to_lowercase().as_str(), "quit" | "exit")
            || (statements::split(text).1 && !statements::open_quote(text));
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl rustyline::hint::Hinter for Words {
    type Hint = String;
}

impl rustyline::highlight::Highlighter for Words {}

impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_columns_and_keywords_complete() {
        let words = Words { words: vec!["bronze.user_events".into(), "user_id".into()] };
        assert_eq!(words.matching("user"), ["bronze.user_events", "user_id"]);
        assert_eq!(words.matching("bronze.u"), ["bronze.user_events"]);
        assert_eq!(words.matching("sel"), ["select"]);
        assert_eq!(words.matching("SEL"), ["SELECT"]);
        assert!(words.matching("").is_empty());
    }
}
