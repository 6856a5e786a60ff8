//! Overrides from the environment: `BOATHOUSE__SECTION__KEY`.
//!
//! Names are the path of a key in capitals, joined by two underscores: `BOATHOUSE__KAFKA__BROKERS`. A pipeline's keys
//! follow its name: `BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__FLUSH_INTERVAL`; an element of a list of tables is
//! named by its `name`: `…__AGGREGATE__EVENTS_PER_MINUTE__WINDOW`. In `kafka.properties`, where names have dots, one
//! underscore is a dot: `BOATHOUSE__KAFKA__PROPERTIES__SECURITY_PROTOCOL`; in `lakehouse.options` it is an underscore.

use serde_json::Value;

use super::error::{ConfigErrors, Origin, did_you_mean};
use super::shape::Shape;
use super::tree::{Content, Node};

const PREFIX: &str = "BOATHOUSE__";

/// One override: the variable's name, the keys it names (lower case), its text.
#[derive(Debug, Clone)]
pub(super) struct Override {
    pub variable: String,
    pub keys: Vec<String>,
    pub text: String,
}

/// The overrides among the environment's variables, in the order of their names.
pub(super) fn overrides(env: impl IntoIterator<Item = (String, String)>) -> Vec<Override> {
    let mut found: Vec<Override> = env
        .into_iter()
        .filter_map(|(variable, text)| {
            let keys = variable.strip_prefix(PREFIX)?.split("__").map(str::to_lowercase).collect();
            Some(Override { variable, keys, text })
        })
        .collect();
    found.sort_by(|a, b| a.variable.cmp(&b.variable));
    found
}

/// Puts an override into a tree, below `keys`.
pub(super) fn apply(o: &Override, keys: &[String], tree: &mut Node, shape: &Shape, errors: &mut ConfigErrors) {
    let origin = Origin::Env(o.variable.clone());
    let Some((key, rest)) = keys.split_first() else {
        if matches!(shape, Shape::Table(_) | Shape::Map { .. }) {
            errors.add(origin, "names a section, not a key", format!("add `__KEY`: {}", names(shape)));
            return;
        }
        // An empty variable leaves a key that needs no value unset, as compose files are written.
        *tree = Node { origin, content: Content::Env(o.text.clone()) };
        return;
    };
    match shape {
        Shape::Table(_) => match shape.key(key) {
            Some(found) => {
                let optional = found.default.is_none() && !found.required;
                if rest.is_empty() && optional && o.text.is_empty() {
                    if let Content::Table(entries) = &mut tree.content {
                        entries.retain(|(k, _)| k != key);
                    }
                    return;
                }
                apply(o, rest, tree.entry(key, &origin), &found.shape, errors);
            }
            None => {
                let hint = match did_you_mean(key, keys_of(shape)) {
                    Some(near) => format!("did you mean `{}`?", near.to_uppercase()),
                    None => names(shape),
                };
                errors.add(origin, format!("no configuration key `{}`", key.to_uppercase()), hint);
            }
        },
        Shape::Map { item, dotted } => {
            let name = if *dotted { keys.join("_").replace('_', ".") } else { keys.join("__") };
            // The file may write the same key as tables in tables; the override must not be one of two.
            let node = match &mut tree.content {
                Content::Table(entries) => {
                    remove_dotted(entries, &name);
                    tree.entry(&name, &origin)
                }
                _ => tree.entry(&name, &origin),
            };
            apply(o, &[], node, item, errors);
        }
        Shape::List(item) if matches!(**item, Shape::Table(_)) => {
            let Content::List(nodes) = &mut tree.content else {
                errors.add(origin, format!("there is no `{key}` to override"), "");
                return;
            };
            match nodes.iter_mut().find(|n| name_of(n) == Some(key.as_str())) {
                Some(node) => apply(o, rest, node, item, errors),
                None => {
                    errors.add(origin, format!("there is no element named `{key}`"), "write its `name` in capitals")
                }
            }
        }
        _ => errors.add(origin, format!("goes on behind a value with `{}`", key.to_uppercase()), "leave that away"),
    }
}

fn remove_dotted(entries: &mut Vec<(String, Node)>, name: &str) {
    entries.retain(|(key, _)| key != name);
    for (key, node) in entries {
        if let (Some(rest), Content::Table(inner)) =
            (name.strip_prefix(key.as_str()).and_then(|r| r.strip_prefix('.')), &mut node.content)
        {
            remove_dotted(inner, rest);
        }
    }
}

fn name_of(node: &Node) -> Option<&str> {
    let Content::Table(entries) = &node.content else { return None };
    entries.iter().find(|(key, _)| key == "name").and_then(|(_, n)| match &n.content {
        Content::Scalar(Value::String(name)) => Some(name.as_str()),
        _ => None,
    })
}

fn keys_of(shape: &Shape) -> Vec<&str> {
    match shape {
        Shape::Table(keys) => keys.iter().map(|k| k.name.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn names(shape: &Shape) -> String {
    match shape {
        Shape::Map { dotted: true, .. } => "any key, with one underscore for each dot".into(),
        Shape::Map { .. } => "any key".into(),
        _ => format!("the keys here are {}", keys_of(shape).join(", ").to_uppercase()),
    }
}
