//! A configuration file as a tree in which every value knows its place.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use toml_edit::{Document, Item, TableLike};

use super::error::{ConfigErrors, Origin};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub origin: Origin,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Table(Vec<(String, Node)>),
    List(Vec<Node>),
    /// A text, number or boolean as the file has it.
    Scalar(Value),
    /// A text from the environment, to be read as whatever the key asks for.
    Env(String),
}

impl Node {
    pub fn table(origin: Origin) -> Self {
        Self { origin, content: Content::Table(Vec::new()) }
    }

    /// The value below a key; made, as an empty table, when it is not there.
    pub fn entry(&mut self, key: &str, origin: &Origin) -> &mut Node {
        if !matches!(self.content, Content::Table(_)) {
            self.content = Content::Table(Vec::new());
        }
        let Content::Table(entries) = &mut self.content else { unreachable!("made a table just above") };
        let index = entries.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
            entries.push((key.to_string(), Node::table(origin.clone())));
            entries.len() - 1
        });
        &mut entries[index].1
    }

    /// The place of every value below, by its path: `kafka.brokers`, `field[0].name`.
    pub fn places(&self, path: &str, out: &mut Vec<(String, Origin)>) {
        out.push((path.to_string(), self.origin.clone()));
        match &self.content {
            Content::Table(entries) => {
                for (key, node) in entries {
                    node.places(&join(path, key), out);
                }
            }
            Content::List(items) => {
                for (i, node) in items.iter().enumerate() {
                    node.places(&format!("{path}[{i}]"), out);
                }
            }
            Content::Scalar(_) | Content::Env(_) => {}
        }
    }
}

/// A path one key further.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// Reads TOML. A syntax error is noted and gives an empty tree.
pub(super) fn parse(path: &Arc<PathBuf>, text: &str, errors: &mut ConfigErrors) -> Node {
    let reader = Reader { path, text };
    match Document::parse(text) {
        Ok(document) => Node { origin: reader.whole(), content: reader.table(document.as_table()) },
        Err(e) => {
            let line = e.span().map(|span| line_of(text, span.start));
            let message = format!("not valid TOML: {}", e.message().trim().replace('\n', ", "));
            let hint = "texts stand in quotes, sections in [brackets], each section and key once";
            errors.add(Origin::File { path: path.clone(), line }, message, hint);
            Node::table(reader.whole())
        }
    }
}

struct Reader<'a> {
    path: &'a Arc<PathBuf>,
    text: &'a str,
}

impl Reader<'_> {
    fn whole(&self) -> Origin {
        Origin::File { path: self.path.clone(), line: None }
    }

    fn origin(&self, span: Option<std::ops::Range<usize>>) -> Origin {
        Origin::File { path: self.path.clone(), line: span.map(|s| line_of(self.text, s.start)) }
    }

    fn table(&self, table: &dyn TableLike) -> Content {
        Content::Table(
            table
                .iter()
                .map(|(key, item)| {
                    let span = table.key(key).and_then(|k| k.span()).or(item.span());
                    (key.to_string(), Node { origin: self.origin(span), content: self.item(item) })
                })
                .collect(),
        )
    }

    fn item(&self, item: &Item) -> Content {
        if let Some(table) = item.as_table_like() {
            return self.table(table);
        }
        match item {
            Item::ArrayOfTables(tables) => Content::List(
                tables.iter().map(|t| Node { origin: self.origin(t.span()), content: self.table(t) }).collect(),
            ),
            Item::Value(value) => self.value(value),
            Item::None | Item::Table(_) => Content::Table(Vec::new()),
        }
    }

    fn value(&self, value: &toml_edit::Value) -> Content {
        use toml_edit::Value as Toml;
        match value {
            Toml::String(s) => Content::Scalar(Value::from(s.value().as_str())),
            Toml::Integer(i) => Content::Scalar(Value::from(*i.value())),
            Toml::Float(f) => Content::Scalar(Value::from(*f.value())),
            Toml::Boolean(b) => Content::Scalar(Value::from(*b.value())),
            // No key takes a date: as a text it is refused where it stands, or taken where any text is.
            Toml::Datetime(d) => Content::Scalar(Value::from(d.value().to_string())),
            Toml::Array(items) => Content::List(
                items.iter().map(|v| Node { origin: self.origin(v.span()), content: self.value(v) }).collect(),
            ),
            Toml::InlineTable(table) => self.table(table),
        }
    }
}

/// The line (from 1) of a byte.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}
