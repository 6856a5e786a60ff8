//! Names and values as DataFusion's SQL has them.

use crate::config::AllowedValue;

/// A column's or table's name.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value of the configuration as a literal.
pub(crate) fn value(value: &AllowedValue) -> String {
    match value {
        AllowedValue::Int(n) => n.to_string(),
        AllowedValue::Text(text) => literal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_stay_inside() {
        assert_eq!(value(&AllowedValue::Text("it's".into())), "'it''s'");
        assert_eq!(value(&AllowedValue::Int(-3)), "-3");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
