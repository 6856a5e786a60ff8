//! The shape of the configuration, read from the types' own JSON schema: names, types, defaults and doc comments have
//! one source, the types.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// What a schema calls a table of free keys whose names have dots, where those of the environment cannot.
pub(super) const DOTTED: &str = "x-dotted";

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Table(Vec<Key>),
    /// Free keys, all with values of one shape. Their names have dots, or else underscores.
    Map {
        item: Box<Shape>,
        dotted: bool,
    },
    List(Box<Shape>),
    Text,
    /// A text that must not be shown.
    Secret,
    Duration {
        forever: bool,
    },
    Size,
    Choice(Vec<String>),
    Int {
        min: Option<i64>,
        max: Option<i64>,
    },
    Float,
    Bool,
    OneOf(Vec<Shape>),
}

/// One key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub name: String,
    pub doc: String,
    /// None where the key may be left out without a value taking its place.
    pub default: Option<Value>,
    pub required: bool,
    pub shape: Shape,
}

impl Shape {
    /// The shape of a configuration type.
    pub fn of<T: JsonSchema>() -> Shape {
        let settings = SchemaSettings::default().with(|s| s.inline_subschemas = true);
        read(&settings.into_generator().into_root_schema_for::<T>().to_value())
    }

    pub fn key(&self, name: &str) -> Option<&Key> {
        match self {
            Shape::Table(keys) => keys.iter().find(|k| k.name == name),
            _ => None,
        }
    }

    /// What to write, in words.
    pub fn describe(&self) -> String {
        match self {
            Shape::Table(_) => "a table".into(),
            Shape::Map { .. } => "a table of free keys".into(),
            Shape::List(item) => match **item {
                Shape::Table(_) => "a list of tables".into(),
                _ => format!("a list, each {}", item.describe()),
            },
            Shape::Text | Shape::Secret => "a text".into(),
            Shape::Duration { forever: false } => "a duration like \"30s\" or \"10m\"".into(),
            Shape::Duration { forever: true } => "a duration like \"30d\", or \"forever\"".into(),
            Shape::Size => "a size like \"64MiB\"".into(),
            Shape::Choice(choices) => {
                let quoted: Vec<String> = choices.iter().map(|c| format!("\"{c}\"")).collect();
                match quoted.split_last() {
                    Some((last, [])) => last.clone(),
                    Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
                    None => "nothing".into(),
                }
            }
            Shape::Int { .. } => "a whole number".into(),
            Shape::Float => "a number".into(),
            Shape::Bool => "true or false".into(),
            Shape::OneOf(shapes) => shapes.iter().map(Shape::describe).collect::<Vec<_>>().join(" or "),
        }
    }
}

fn read(schema: &Value) -> Shape {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    match text("format") {
        Some("duration") => return Shape::Duration { forever: false },
        Some("duration-or-forever") => return Shape::Duration { forever: true },
        Some("size") => return Shape::Size,
        Some("secret") => return Shape::Secret,
        _ => {}
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return Shape::Choice(choices.iter().filter_map(|c| c.as_str().map(String::from)).collect());
    }
    for key in ["oneOf", "anyOf"] {
        let Some(options) = schema.get(key).and_then(Value::as_array) else { continue };
        let consts: Vec<String> =
            options.iter().filter_map(|o| o.get("const").and_then(Value::as_str).map(String::from)).collect();
        if consts.len() == options.len() {
            return Shape::Choice(consts);
        }
        let mut shapes: Vec<Shape> =
            options.iter().filter(|o| o.get("type") != Some(&Value::from("null"))).map(read).collect();
        return if shapes.len() == 1 { shapes.remove(0) } else { Shape::OneOf(shapes) };
    }
    // `["string", "null"]` is how an optional text reads.
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|k| *k != "null"),
        Some(Value::String(kind)) => Some(kind.as_str()),
        _ => None,
    };
    match kind {
        Some("object") => match schema.get("additionalProperties") {
            Some(item @ Value::Object(_)) => Shape::Map {
                item: Box::new(read(item)),
                dotted: schema.get(DOTTED).and_then(Value::as_bool).unwrap_or(false),
            },
            _ => Shape::Table(keys(schema)),
        },
        Some("array") => Shape::List(Box::new(schema.get("items").map_or(Shape::Text, read))),
        Some("integer") => Shape::Int {
            min: schema.get("minimum").and_then(Value::as_i64),
            max: schema.get("maximum").and_then(Value::as_i64).or(match text("format") {
                Some("uint32") => Some(u32::MAX.into()),
                Some("int32") => Some(i32::MAX.into()),
                Some("uint16") => Some(u16::MAX.into()),
                _ => None,
            }),
        },
        Some("number") => Shape::Float,
        Some("boolean") => Shape::Bool,
        _ => Shape::Text,
    }
}

fn keys(schema: &Value) -> Vec<Key> {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|r| r.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let mut keys: Vec<Key> = properties
        .iter()
        .map(|(name, schema)| Key {
            name: name.clone(),
            // The doc comment's line breaks are the source's, not the text's.
            doc: schema.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " "),
            default: schema.get("default").filter(|d| !d.is_null()).cloned(),
            required: required.contains(&name.as_str()),
            shape: read(schema),
        })
        .collect();
    // JSON objects come in one order or another with a feature of serde_json that any dependency may switch on.
    keys.sort_by(|a, b| b.required.cmp(&a.required).then_with(|| a.name.cmp(&b.name)));
    keys
}
