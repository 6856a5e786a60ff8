//! A tree against its shape: unknown keys, wrong types, missing keys. What is wrong is noted and left out, so that the
//! rest can still be checked.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::error::{ConfigErrors, Origin, did_you_mean};
use super::shape::Shape;
use super::tree::{Content, Node, join};
use super::units::ByteSize;

/// Checks a tree and gives it as JSON that can be read as its type: what is wrong and optional is left out, what is
/// required and missing or wrong has a neutral value (an empty text, an empty list, the first choice). The paths of both
/// are in `broken`, so that later checks can pass over them.
pub(super) fn check(node: &Node, root: &Shape, broken: &mut BTreeSet<String>, errors: &mut ConfigErrors) -> Value {
    let mut checker = Checker { root, errors, broken };
    checker.node(node, root, "").unwrap_or_else(|| Value::Object(Map::new()))
}

struct Checker<'a> {
    root: &'a Shape,
    errors: &'a mut ConfigErrors,
    broken: &'a mut BTreeSet<String>,
}

fn neutral(shape: &Shape) -> Value {
    match shape {
        Shape::Table(keys) => {
            Value::Object(keys.iter().filter(|k| k.required).map(|k| (k.name.clone(), neutral(&k.shape))).collect())
        }
        Shape::Map { .. } => Value::Object(Map::new()),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Text | Shape::Secret => Value::from(""),
        Shape::Duration { .. } => Value::from("1s"),
        Shape::Size | Shape::Int { .. } | Shape::Float => Value::from(0),
        Shape::Choice(choices) => Value::from(choices.first().map(String::as_str).unwrap_or_default()),
        Shape::Bool => Value::from(false),
        Shape::OneOf(shapes) => shapes.first().map_or(Value::Null, neutral),
    }
}

impl Checker<'_> {
    fn wrong(&mut self, node: &Node, path: &str, shape: &Shape, found: &str) -> Option<Value> {
        self.errors.add(node.origin.clone(), format!("`{path}` is {found}"), format!("write {}", shape.describe()));
        self.broken.insert(path.to_string());
        None
    }

    fn node(&mut self, node: &Node, shape: &Shape, path: &str) -> Option<Value> {
        match (shape, &node.content) {
            (Shape::Table(_), Content::Table(entries)) => Some(self.table(node, entries, shape, path)),
            (Shape::Map { item, .. }, Content::Table(entries)) => {
                let mut map = Map::new();
                self.map(entries, item, "", path, &mut map);
                Some(Value::Object(map))
            }
            (Shape::List(item), Content::List(nodes)) => Some(Value::Array(
                nodes.iter().enumerate().map(|(i, n)| self.element(n, item, &format!("{path}[{i}]"))).collect(),
            )),
            (Shape::List(item), Content::Env(text)) => {
                let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
                let node = |p: &str| Node { origin: node.origin.clone(), content: Content::Env(p.to_string()) };
                Some(Value::Array(parts.map(|p| self.element(&node(p), item, path)).collect()))
            }
            (Shape::OneOf(shapes), _) => {
                let (mut quiet, mut broken) = (ConfigErrors::default(), BTreeSet::new());
                let found = shapes.iter().find_map(|shape| {
                    Checker { root: self.root, errors: &mut quiet, broken: &mut broken }.node(node, shape, path)
                });
                found.or_else(|| self.wrong(node, path, shape, &kind(&node.content)))
            }
            (_, Content::Scalar(value)) => self.scalar(node, value, shape, path),
            (_, Content::Env(text)) => {
                let value = match shape {
                    Shape::Int { .. } => text.trim().parse::<i64>().ok().map(Value::from),
                    Shape::Float => text.trim().parse::<f64>().ok().map(Value::from),
                    Shape::Bool => text.trim().parse::<bool>().ok().map(Value::from),
                    _ => None,
                };
                self.scalar(node, &value.unwrap_or_else(|| Value::from(text.as_str())), shape, path)
            }
            _ => self.wrong(node, path, shape, &kind(&node.content)),
        }
    }

    /// An element of a list; a wrong one keeps its place, so that the others keep their numbers.
    fn element(&mut self, node: &Node, shape: &Shape, path: &str) -> Value {
        self.node(node, shape, path).unwrap_or_else(|| neutral(shape))
    }

    fn table(&mut self, node: &Node, entries: &[(String, Node)], shape: &Shape, path: &str) -> Value {
        let Shape::Table(keys) = shape else { return Value::Object(Map::new()) };
        let mut out = Map::new();
        for (name, node) in entries {
            match shape.key(name) {
                Some(key) => {
                    let value = self.node(node, &key.shape, &join(path, name));
                    let value = value.or_else(|| key.required.then(|| neutral(&key.shape)));
                    out.extend(value.map(|v| (name.clone(), v)));
                }
                None => self.unknown(name, node.origin.clone(), shape, path),
            }
        }
        for key in keys.iter().filter(|k| k.required && !entries.iter().any(|(name, _)| *name == k.name)) {
            self.broken.insert(join(path, &key.name));
            out.insert(key.name.clone(), neutral(&key.shape));
            let hint = match &key.shape {
                Shape::List(item) if matches!(**item, Shape::Table(_)) => {
                    format!("add a [[{}]] section", join(path, &key.name))
                }
                shape => format!("add `{} = …`, {}: {}", key.name, shape.describe(), key.doc),
            };
            self.errors.add(node.origin.clone(), format!("`{}` is missing", join(path, &key.name)), hint);
        }
        Value::Object(out)
    }

    /// Free keys. `a.b = "x"` without quotes is TOML for a table in a table, but means the key `a.b`.
    fn map(
        &mut self,
        entries: &[(String, Node)],
        item: &Shape,
        prefix: &str,
        path: &str,
        out: &mut Map<String, Value>,
    ) {
        for (name, node) in entries {
            let name = join(prefix, name);
            match (&node.content, item) {
                (Content::Table(inner), Shape::Text) => self.map(inner, item, &name, path, out),
                (Content::Scalar(Value::Number(n)), Shape::Text) => {
                    out.insert(name, Value::from(n.to_string()));
                }
                (Content::Scalar(Value::Bool(b)), Shape::Text) => {
                    out.insert(name, Value::from(b.to_string()));
                }
                _ => {
                    if let Some(value) = self.node(node, item, &join(path, &name)) {
                        out.insert(name, value);
                    }
                }
            }
        }
    }

    fn unknown(&mut self, name: &str, origin: Origin, shape: &Shape, path: &str) {
        let Shape::Table(keys) = shape else { return };
        let names = || keys.iter().map(|k| k.name.as_str());
        let section = if path.is_empty() { "at the top level".into() } else { format!("in `{path}`") };
        let elsewhere = paths_of(self.root, name, "").into_iter().find(|p| *p != join(path, name));
        let hint = match (did_you_mean(name, names()), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(elsewhere)) => format!("did you mean `{elsewhere}`?"),
            (None, None) => format!("the keys here are {}", names().collect::<Vec<_>>().join(", ")),
        };
        self.errors.add(origin, format!("unknown key `{name}` {section}"), hint);
    }

    fn scalar(&mut self, node: &Node, value: &Value, shape: &Shape, path: &str) -> Option<Value> {
        let shown = match (value, shape) {
            (_, Shape::Secret) => "no text".to_string(),
            (Value::String(s), _) => format!("\"{s}\""),
            (other, _) => other.to_string(),
        };
        let fits = match (shape, value) {
            (Shape::Text | Shape::Secret, Value::String(_)) => true,
            (Shape::Bool, Value::Bool(_)) | (Shape::Float, Value::Number(_)) => true,
            (Shape::Int { min, max }, Value::Number(n)) => match n.as_i64() {
                Some(n) if min.is_none_or(|min| n >= min) && max.is_none_or(|max| n <= max) => true,
                Some(_) => return self.wrong(node, path, shape, &format!("{shown}, out of range")),
                None => false,
            },
            (Shape::Choice(choices), Value::String(s)) => {
                if !choices.contains(s) {
                    let hint = match did_you_mean(s, choices.iter().map(String::as_str)) {
                        Some(near) => format!("did you mean \"{near}\"? Write {}", shape.describe()),
                        None => format!("write {}", shape.describe()),
                    };
                    self.errors.add(node.origin.clone(), format!("`{path}` is {shown}"), hint);
                    self.broken.insert(path.to_string());
                    return None;
                }
                true
            }
            (Shape::Duration { forever }, Value::String(s)) => {
                (*forever && s == "forever") || humantime::parse_duration(s).is_ok()
            }
            (Shape::Size, Value::String(s)) => s.parse::<ByteSize>().is_ok(),
            (Shape::Size, Value::Number(n)) => n.as_u64().is_some(),
            _ => false,
        };
        if fits { Some(value.clone()) } else { self.wrong(node, path, shape, &shown) }
    }
}

fn kind(content: &Content) -> String {
    match content {
        Content::Table(_) => "a table".into(),
        Content::List(_) => "a list".into(),
        Content::Scalar(Value::String(s)) => format!("\"{s}\""),
        Content::Scalar(value) => value.to_string(),
        Content::Env(text) => format!("\"{text}\""),
    }
}

/// The paths of all keys of this name below a shape, for "it belongs elsewhere".
fn paths_of(shape: &Shape, name: &str, path: &str) -> Vec<String> {
    let Shape::Table(keys) = shape else { return Vec::new() };
    keys.iter()
        .flat_map(|key| {
            let here = join(path, &key.name);
            let mut found = paths_of(&key.shape, name, &here);
            if key.name == name {
                found.push(here);
            }
            found
        })
        .collect()
}
