//! Changing single values of a record, and what has changed. Pure. What is not changed stays byte for byte.

use serde::Serialize;
use serde_json::Value;

use crate::config::{Field, FieldType, Pipeline};
use crate::event::{Member, members};

/// One value to set, or a key to take out.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub field: String,
    /// None takes the key out.
    pub value: Option<Value>,
}

/// Why a record cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("`{0}` is no change; write FIELD=VALUE")]
    Shape(String),
    #[error("pipeline {pipeline} has no field `{field}`; it has {fields}")]
    NoField { pipeline: String, field: String, fields: String },
    #[error("{field} is {kind}, and `{value}` is none")]
    Type { field: String, kind: &'static str, value: String },
    #[error("its value is no JSON object ({0}), so that no single field can be set: give the whole value")]
    NotObject(String),
}

impl Change {
    /// Reads `FIELD=VALUE`, by the type that the pipeline gives the field.
    pub fn read(pipeline: &Pipeline, text: &str) -> Result<Self, EditError> {
        let (field, value) = text.split_once('=').ok_or_else(|| EditError::Shape(text.to_owned()))?;
        Self::set(pipeline, field.trim(), value)
    }

    /// Sets a field from the text of its value.
    pub fn set(pipeline: &Pipeline, field: &str, text: &str) -> Result<Self, EditError> {
        let value = typed(known(pipeline, field)?, text)?;
        Ok(Self { field: field.to_owned(), value: Some(value) })
    }

    /// Sets a field to a JSON value; null takes it out.
    pub fn json(pipeline: &Pipeline, field: &str, value: Value) -> Result<Self, EditError> {
        known(pipeline, field)?;
        Ok(Self { field: field.to_owned(), value: Some(value).filter(|value| !value.is_null()) })
    }

    /// Takes a field out.
    pub fn unset(pipeline: &Pipeline, field: &str) -> Result<Self, EditError> {
        known(pipeline, field)?;
        Ok(Self { field: field.to_owned(), value: None })
    }
}

fn known<'a>(pipeline: &'a Pipeline, field: &str) -> Result<&'a Field, EditError> {
    pipeline.fields.iter().find(|f| f.name == field).ok_or_else(|| EditError::NoField {
        pipeline: pipeline.name.clone(),
        field: field.to_owned(),
        fields: pipeline.fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

fn typed(field: &Field, text: &str) -> Result<Value, EditError> {
    let wrong = |kind| EditError::Type { field: field.name.clone(), kind, value: text.to_owned() };
    let plain = text.trim();
    Ok(match field.kind {
        FieldType::String => text.into(),
        FieldType::Timestamp => plain.into(),
        FieldType::Int => plain.parse::<i64>().map_err(|_| wrong("an int"))?.into(),
        FieldType::Float => {
            let number = plain.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            Value::Number(number.ok_or_else(|| wrong("a float"))?)
        }
        FieldType::Bool => plain.parse::<bool>().map_err(|_| wrong("true or false"))?.into(),
    })
}

/// The record with the changes. Of a repeated key the last one counts, and is the one that is changed.
pub fn apply(value: &[u8], changes: &[Change]) -> Result<Vec<u8>, EditError> {
    let mut value = value.to_vec();
    for change in changes {
        let found = members(&value).map_err(EditError::NotObject)?;
        value = match (&change.value, found.iter().rfind(|m| m.key == change.field)) {
            (Some(new), Some(at)) => {
                [&value[..at.value.start], new.to_string().as_bytes(), &value[at.value.end..]].concat()
            }
            (Some(new), None) => {
                let member = format!("{}:{new}", Value::from(change.field.as_str()));
                match found.last() {
                    Some(last) => {
                        [&value[..last.whole.end], b",", member.as_bytes(), &value[last.whole.end..]].concat()
                    }
                    None => format!("{{{member}}}").into_bytes(),
                }
            }
            (None, None) => continue,
            (None, Some(_)) => {
                let kept = found.iter().filter(|m| m.key != change.field).map(|m| &value[m.whole.clone()]);
                [b"{", &kept.collect::<Vec<_>>().join(&b","[..])[..], b"}"].concat()
            }
        };
    }
    Ok(value)
}

/// A key whose value is another one now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub field: String,
    /// As it is written, in JSON; none where the key was not there.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// What differs, key by key; none where one of both is no object, so that only the whole can be compared.
pub fn differences(before: &[u8], after: &[u8]) -> Option<Vec<Difference>> {
    let (old, new) = (last_of_each(before)?, last_of_each(after)?);
    let find = |all: &[(String, String)], key: &str| all.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let added = new.iter().filter(|(key, _)| find(&old, key).is_none());
    let keys = old.iter().chain(added).map(|(key, _)| key);
    let each = keys.map(|key| Difference { field: key.clone(), before: find(&old, key), after: find(&new, key) });
    Some(each.filter(|d| d.before != d.after).collect())
}

/// The keys of a record with their values as they are written.
pub fn last_of_each(value: &[u8]) -> Option<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    for Member { key, value: at, .. } in members(value).ok()? {
        // The whole record is UTF-8.
        let text = String::from_utf8_lossy(&value[at]).into_owned();
        match all.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = text,
            None => all.push((key, text)),
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::silver::testing::pipeline;

    fn changed(value: &str, changes: &[&str]) -> String {
        let changes: Vec<Change> = changes.iter().map(|text| Change::read(&pipeline(), text).unwrap()).collect();
        String::from_utf8(apply(value.as_bytes(), &changes).unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_as_it_is() {
        let text = r#"{ "user_id" : 1e3, "x": 0.10, "page":"/"  }"#;
        assert_eq!(changed(text, &["user_id=7"]), r#"{ "user_id" : 7, "x": 0.10, "page":"/"  }"#);
        assert_eq!(changed(text, &["source=web"]), r#"{ "user_id" : 1e3, "x": 0.10, "page":"/","source":"web"  }"#);
        assert_eq!(changed("{}", &["page=a\"b=c"]), r#"{"page":"a\"b=c"}"#);
        assert_eq!(changed(r#"{"page":1,"page":2}"#, &["page=/"]), r#"{"page":1,"page":"/"}"#);
        let out = Change::unset(&pipeline(), "page").unwrap();
        assert_eq!(apply(br#"{"page":1,"x": 2,"page":3}"#, std::slice::from_ref(&out)).unwrap(), br#"{"x": 2}"#);
    }

    #[test]
    fn a_change_that_cannot_be_says_why() {
        for (text, part) in [("page", "FIELD=VALUE"), ("pages=/", "it has event_id"), ("user_id=seven", "an int")] {
            let error = Change::read(&pipeline(), text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let change = Change::read(&pipeline(), "user_id=7").unwrap();
        let error = apply(b"{oops", &[change]).unwrap_err().to_string();
        assert!(error.contains("give the whole value"), "{error}");
    }

    #[test]
    fn differences_are_told_key_by_key() {
        let found = differences(br#"{"a":1,"b":2,"c":3}"#, br#"{"b":2,"a":"1","d":4}"#).unwrap();
        let shown: Vec<(&str, Option<&str>, Option<&str>)> =
            found.iter().map(|d| (d.field.as_str(), d.before.as_deref(), d.after.as_deref())).collect();
        assert_eq!(shown, [("a", Some("1"), Some("\"1\"")), ("c", Some("3"), None), ("d", None, Some("4"))]);
        assert_eq!(differences(b"oops", b"{}"), None);
    }
}
