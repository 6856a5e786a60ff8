//! Which events a tap shows: conditions on fields, all of which must hold. Pure.

use std::str::FromStr;

use serde_json::{Map, Value};

/// `FIELD=VALUE`, `FIELD!=VALUE`, `FIELD~TEXT` (contains), `FIELD<NUMBER`, `FIELD>NUMBER`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    field: String,
    operator: Operator,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Contains,
    Less,
    Greater,
}

/// A condition that cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BadCondition {
    #[error("`{0}` is no condition; write FIELD=VALUE, FIELD!=VALUE, FIELD~TEXT, FIELD<NUMBER or FIELD>NUMBER")]
    Shape(String),
    #[error("`{0}` compares with `{1}`, which is no number")]
    Number(String, String),
}

impl FromStr for Condition {
    type Err = BadCondition;

    fn from_str(text: &str) -> Result<Self, BadCondition> {
        let shape = || BadCondition::Shape(text.to_owned());
        let at = text.find(['=', '!', '~', '<', '>']).ok_or_else(shape)?;
        let (field, rest) = text.split_at(at);
        let (operator, value) = match rest.as_bytes() {
            [b'!', b'=', ..] => (Operator::NotEqual, &rest[2..]),
            [b'=', ..] => (Operator::Equal, &rest[1..]),
            [b'~', ..] => (Operator::Contains, &rest[1..]),
            [b'<', ..] => (Operator::Less, &rest[1..]),
            [b'>', ..] => (Operator::Greater, &rest[1..]),
            _ => return Err(shape()),
        };
        let (field, value) = (field.trim(), value.trim());
        if field.is_empty() {
            return Err(shape());
        }
        if matches!(operator, Operator::Less | Operator::Greater) && value.parse::<f64>().is_err() {
            return Err(BadCondition::Number(text.to_owned(), value.to_owned()));
        }
        Ok(Self { field: field.to_owned(), operator, value: value.to_owned() })
    }
}

impl Condition {
    /// The field that is looked at.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Whether an event meets it. A field that is missing or null equals nothing.
    pub fn holds(&self, event: &Map<String, Value>) -> bool {
        let found = match event.get(&self.field) {
            None | Some(Value::Null) => return self.operator == Operator::NotEqual,
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let numbers = || Some((found.parse::<f64>().ok()?, self.value.parse::<f64>().ok()?));
        match self.operator {
            Operator::Equal => found == self.value,
            Operator::NotEqual => found != self.value,
            Operator::Contains => found.contains(&self.value),
            Operator::Less => numbers().is_some_and(|(a, b)| a < b),
            Operator::Greater => numbers().is_some_and(|(a, b)| a > b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Map<String, Value> {
        let event = serde_json::json!({"user_id": 42, "page": "/a=b", "event_type": "login", "source": null});
        event.as_object().unwrap().clone()
    }

    #[test]
    fn conditions_compare_text_and_numbers() {
        for (text, holds) in [
            ("event_type=login", true),
            ("event_type!=login", false),
            ("event_type != purchase", true),
            ("user_id=42", true),
            ("user_id=4", false),
            ("user_id>41.5", true),
            ("user_id<42", false),
            ("page~/a", true),
            ("page=/a=b", true),
            ("page>1", false),
            ("source=web", false),
            ("source!=web", true),
            ("nothing=1", false),
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().holds(&event()), holds, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in ["", "login", "=a", "a!b", "user_id<many"] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
        assert!("user_id<many".parse::<Condition>().unwrap_err().to_string().contains("`many`"));
    }
}
