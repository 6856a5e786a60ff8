//! Bad and odd input for the pipeline `user_events`, each with what must become of it: the one list that the decoder is
//! held against (`event.rs`) and that goes through broker, daemon and both sinks (`poison.rs`).

/// One record and its lot.
pub struct Case {
    pub name: &'static str,
    /// The record's value; none for a tombstone.
    pub value: Option<Vec<u8>>,
    pub expected: Expected,
    /// Its `time_status` where it comes to Kafka at [`KAFKA_TIME`] behind events of 14:30:00 to 14:30:29, with the
    /// shipped bound (30 s), allowed lateness (10 min) and guard (5 min).
    pub status: &'static str,
}

/// When the records come to Kafka, for those who say so: five seconds after the event that the cases vary.
pub const KAFKA_TIME: &str = "2026-02-06T14:30:05Z";

/// What must become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It is an event that its columns give back.
    Event,
    /// It is an event whose bytes are kept in `payload`.
    EventKept,
    /// It is none, with this error.
    Unparsed(&'static str),
}

use Expected::{Event, EventKept, Unparsed};

/// The event that the cases vary. Its time is 2026-02-06T14:30:00 where a case does not say otherwise.
pub const EVENT: &str = r#"{"event_id":"7c9e6679-7425-40de-944b-e07fc1f90ae7","user_id":42,"event_type":"click","page":"/home","timestamp":"2026-02-06T14:30:00","source":"web"}"#;

/// Every case, in a fixed order.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut case = |name, value: Vec<u8>, expected| {
        let status = if matches!(expected, Unparsed(_)) { "unparsed" } else { "ok" };
        all.push(Case { name, value: Some(value), expected, status });
    };
    // The event with one value written in another way.
    let with = |old: &str, new: &str| {
        assert!(EVENT.contains(old), "the event has no {old}");
        EVENT.replacen(old, new, 1).into_bytes()
    };
    // The event with something more at the end of the object.
    let and = |more: &str| format!("{},{more}}}", &EVENT[..EVENT.len() - 1]).into_bytes();
    let at = |time: &str| with("2026-02-06T14:30:00", time);
    let user = |id: &str| with("\"user_id\":42", &format!("\"user_id\":{id}"));
    let big = "x".repeat(1 << 20);

    // Events.
    case("plain", EVENT.into(), Event);
    case("white space around it", format!("\r\n\t {EVENT} \n").into(), Event);
    case("white space within it", EVENT.replace(':', " : ").replace("14 : 30 : 00", "14:30:00").into(), Event);
    case("keys in another order", br#"{"source":"web","timestamp":"2026-02-06T14:30:00","page":"/home","event_type":"click","user_id":42,"event_id":"e"}"#.to_vec(), Event);
    case("escapes in a value", with("/home", r"\/h\u006fme\n\ud83d\ude00"), Event);
    case("escapes in a key", with("user_id", r"user\u005fid"), Event);
    case("other scripts", with("/home", "/首页/é/😀"), Event);
    case("a zero character", with("/home", r"a\u0000b"), Event);
    case("empty strings", with("/home", ""), Event);
    case("a value that is not allowed", with("click", "teleport"), Event);
    case("a value as long as a megabyte", with("/home", &big), Event);
    case("greatest integer", user("9223372036854775807"), Event);
    case("least integer", user("-9223372036854775808"), Event);
    case("zero", user("0"), Event);

    // Events that the columns alone could not give back.
    case("minus zero", user("-0"), EventKept);
    case("unknown key", and(r#""referrer":"/start""#), EventKept);
    case("unknown key with deep value", and(r#""context":{"a":[1,{"b":null}],"c":[]}"#), EventKept);
    case("unknown huge number", and(r#""n":1e99999,"m":-123456789012345678901234567890.5"#), EventKept);
    case("unknown empty key", and(r#""":null"#), EventKept);
    case("unknown key of a megabyte", and(&format!(r#""{big}":"{big}""#)), EventKept);
    case(
        "many unknown keys",
        and(&(0..50_000).map(|i| format!("\"k{i}\":{i}")).collect::<Vec<_>>().join(",")),
        EventKept,
    );
    case("repeated key", and(r#""user_id":43"#), EventKept);
    case("repeated key, wrong first", with(r#""user_id":42"#, r#""user_id":"x","user_id":42"#), EventKept);
    case("repeated key with an escape", and(r#""user\u005fid":43"#), EventKept);
    case("nesting of 127", and(&format!(r#""deep":{}{}"#, "[".repeat(126), "]".repeat(126))), EventKept);
    case("nesting of 128", and(&format!(r#""deep":{}{}"#, "[".repeat(127), "]".repeat(127))), EventKept);
    case("fraction", at("2026-02-06T14:30:00.123"), EventKept);
    case("fraction of nanoseconds", at("2026-02-06T14:30:00.123456789"), EventKept);
    case("zone Z", at("2026-02-06T14:30:00Z"), EventKept);
    case("zone with a colon", at("2026-02-06T16:30:00+02:00"), EventKept);
    case("zone without a colon", at("2026-02-06T09:00:00.5-0530"), EventKept);
    case("space for T", at("2026-02-06 14:30:00"), EventKept);

    // Not JSON.
    case("empty", vec![], Unparsed("empty value"));
    case("white space only", b" \n".to_vec(), Unparsed("not JSON: it ends too early at byte 2"));
    case("text", b"hello".to_vec(), Unparsed("not JSON: expected a value at byte 0"));
    case("byte order mark", format!("\u{feff}{EVENT}").into(), Unparsed("not JSON: expected a value at byte 0"));
    case("zeros", vec![0; 64], Unparsed("not JSON: expected a value at byte 0"));
    case("cut short", EVENT.as_bytes()[..60].to_vec(), Unparsed("not JSON: it ends too early at byte 60"));
    case(
        "closing brace missing",
        EVENT.as_bytes()[..EVENT.len() - 1].to_vec(),
        Unparsed("not JSON: it ends too early at byte 148"),
    );
    case("two values", format!("{EVENT}{EVENT}").into(), Unparsed("not JSON: more behind the value at byte 149"));
    case("comma at the end", with("}", ",}"), Unparsed("not JSON: expected a string at byte 149"));
    case("comment", with("{", "{/* */"), Unparsed("not JSON: expected a string at byte 1"));
    case("single quotes", EVENT.replace('"', "'").into(), Unparsed("not JSON: expected a string at byte 1"));
    case("colon missing", with("\"user_id\":", "\"user_id\" "), Unparsed("not JSON: expected `:` at byte 61"));
    case("comma missing", with(":42,", ":42 "), Unparsed("not JSON: expected `,` or `}` at byte 64"));
    case("leading zero", user("042"), Unparsed("not JSON: expected `,` or `}` at byte 62"));
    case("plus sign", user("+42"), Unparsed("not JSON: expected a value at byte 61"));
    case("hexadecimal", user("0x2A"), Unparsed("not JSON: expected `,` or `}` at byte 62"));
    case("NaN", user("NaN"), Unparsed("not JSON: expected a value at byte 61"));
    case("point without digits", user("42."), Unparsed("not JSON: expected a digit at byte 64"));
    case(
        "line break in a string",
        with("/home", "/ho\nme"),
        Unparsed("not JSON: control character in a string at byte 96"),
    );
    case("unknown escape", with("/home", r"\x41"), Unparsed("not JSON: unknown escape in a string at byte 94"));
    case("lone high surrogate", with("/home", r"\ud83d"), Unparsed("not JSON: lone surrogate in a string at byte 93"));
    case(
        "lone low surrogate",
        with("/home", r"\ude00\ud83d"),
        Unparsed("not JSON: lone surrogate in a string at byte 93"),
    );
    case(
        "lone surrogate in an unknown value",
        and(r#""a":["\ud83dx"]"#),
        Unparsed("not JSON: lone surrogate in a string at byte 155"),
    );
    case("lone surrogate in a key", and(r#""\udc00":1"#), Unparsed("not JSON: lone surrogate in a string at byte 150"));
    case(
        "nesting of 129",
        and(&format!(r#""deep":{}{}"#, "[".repeat(128), "]".repeat(128))),
        Unparsed("not JSON: nested deeper than 128 at byte 283"),
    );
    case(
        "nesting of 100,000",
        and(&format!(r#""deep":{}{}"#, "[".repeat(99_999), "]".repeat(99_999))),
        Unparsed("not JSON: nested deeper than 128 at byte 283"),
    );
    case("a megabyte of brackets", vec![b'['; 1 << 20], Unparsed("not JSON: nested deeper than 128 at byte 128"));
    case(
        "a megabyte of objects",
        br#"{"a":"#.repeat(200_000),
        Unparsed("not JSON: nested deeper than 128 at byte 640"),
    );
    case(
        "a megabyte of an open string",
        format!("\"{big}").into(),
        Unparsed("not JSON: it ends too early at byte 1048577"),
    );
    case("a megabyte of spaces", vec![b' '; 1 << 20], Unparsed("not JSON: it ends too early at byte 1048576"));
    case(
        "invalid UTF-8 in a value",
        [&EVENT.as_bytes()[..95], b"\xff", &EVENT.as_bytes()[95..]].concat(),
        Unparsed("not UTF-8 at byte 95"),
    );
    case(
        "invalid UTF-8 in an unknown value",
        {
            let mut v = and(r#""a":"?""#);
            v[154] = 0xc3;
            v
        },
        Unparsed("not UTF-8 at byte 154"),
    );
    case(
        "overlong UTF-8",
        [&EVENT.as_bytes()[..95], b"\xc0\xaf", &EVENT.as_bytes()[95..]].concat(),
        Unparsed("not UTF-8 at byte 95"),
    );
    case(
        "surrogate in UTF-8",
        [&EVENT.as_bytes()[..95], b"\xed\xa0\x80", &EVENT.as_bytes()[95..]].concat(),
        Unparsed("not UTF-8 at byte 95"),
    );
    case(
        "UTF-16",
        EVENT.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Unparsed("not JSON: expected a string at byte 1"),
    );
    case("Avro", b"\x00\x00\x00\x00\x07\x48abc".to_vec(), Unparsed("not JSON: expected a value at byte 0"));

    // JSON, but no event.
    case("null", b"null".to_vec(), Unparsed("expected an object, found null"));
    case("a number", b"42".to_vec(), Unparsed("expected an object, found number"));
    case("a string", b"\"{}\"".to_vec(), Unparsed("expected an object, found string"));
    case("an array of events", format!("[{EVENT}]").into(), Unparsed("expected an object, found array"));
    case("empty object", b"{}".to_vec(), Unparsed("event_id: missing"));
    case("missing field", EVENT.replace(r#","source":"web""#, "").into(), Unparsed("source: missing"));
    for (name, text, kind) in FIELDS {
        let member = format!("\"{name}\":{text}");
        let without = if *name == "source" { format!(",{member}") } else { format!("{member},") };
        case("field left out", with(&without, ""), Unparsed(leak(format!("{name}: missing"))));
        for (other, found) in [("null", "null"), ("{}", "object"), ("[]", "array"), ("false", "bool")] {
            let error = leak(format!("{name}: expected {kind}, found {found}"));
            case("field of another type", with(&member, &format!("\"{name}\":{other}")), Unparsed(error));
        }
    }
    case("key in another case", with("user_id", "User_Id"), Unparsed("user_id: missing"));
    case("null in a field", user("null"), Unparsed("user_id: expected int, found null"));
    case("string for int", user("\"42\""), Unparsed("user_id: expected int, found string"));
    case("fraction for int", user("42.0"), Unparsed("user_id: expected int, found 42.0"));
    case("exponent for int", user("42e0"), Unparsed("user_id: expected int, found 42e0"));
    case(
        "int beyond 64 bits",
        user("9223372036854775808"),
        Unparsed("user_id: 9223372036854775808 does not fit signed 64 bits"),
    );
    case(
        "int below 64 bits",
        user("-9223372036854775809"),
        Unparsed("user_id: -9223372036854775809 does not fit signed 64 bits"),
    );
    case("huge exponent for int", user("1e99999"), Unparsed("user_id: expected int, found 1e99999"));
    case(
        "int of a thousand digits",
        user(&"9".repeat(1000)),
        Unparsed("user_id: 9999999999999999999999999999999999999999… does not fit signed 64 bits"),
    );
    case("bool for int", user("true"), Unparsed("user_id: expected int, found bool"));
    case("number for string", with("\"/home\"", "7"), Unparsed("page: expected string, found number"));
    case(
        "object for string",
        with("\"/home\"", r#"{"path":"/home"}"#),
        Unparsed("page: expected string, found object"),
    );
    case("array for string", with("\"/home\"", r#"["/home"]"#), Unparsed("page: expected string, found array"));
    case("repeated key, wrong last", and(r#""user_id":"x""#), Unparsed("user_id: expected int, found string"));
    case("repeated key, null last", and(r#""page":null"#), Unparsed("page: expected string, found null"));
    case(
        "number for timestamp",
        with("\"2026-02-06T14:30:00\"", "1770388200"),
        Unparsed("timestamp: expected timestamp, found number"),
    );

    // Odd timestamps.
    case("no day", at("2026-02-30T14:30:00"), Unparsed("timestamp: 2026-02-30 is not a date"));
    case("no leap day", at("2025-02-29T14:30:00"), Unparsed("timestamp: 2025-02-29 is not a date"));
    case("month 13", at("2026-13-01T14:30:00"), Unparsed("timestamp: 2026-13-01 is not a date"));
    case("hour 24", at("2026-02-06T24:00:00"), Unparsed("timestamp: 2026-02-06T24:00:00 is not a time of day"));
    case("leap second", at("2016-12-31T23:59:60"), Unparsed("timestamp: 2016-12-31T23:59:60 is not a time of day"));
    case(
        "year 0",
        at("0000-01-01T00:00:00"),
        Unparsed("timestamp: 0000-01-01T00:00:00 is not between the years 1970 and 2105 in UTC"),
    );
    case(
        "year 1969",
        at("1969-12-31T23:59:59"),
        Unparsed("timestamp: 1969-12-31T23:59:59 is not between the years 1970 and 2105 in UTC"),
    );
    case(
        "year 2106",
        at("2106-01-01T00:00:00"),
        Unparsed("timestamp: 2106-01-01T00:00:00 is not between the years 1970 and 2105 in UTC"),
    );
    case(
        "year 9999",
        at("9999-12-31T23:59:59"),
        Unparsed("timestamp: 9999-12-31T23:59:59 is not between the years 1970 and 2105 in UTC"),
    );
    case(
        "year 2106 by its zone",
        at("2105-12-31T23:59:59-00:01"),
        Unparsed("timestamp: 2105-12-31T23:59:59-00:01 is not between the years 1970 and 2105 in UTC"),
    );
    case("year of five digits", at("12026-02-06T14:30:00"), Unparsed(FORM_5));
    case(
        "date alone",
        at("2026-02-06"),
        Unparsed("timestamp: 2026-02-06 is not written YYYY-MM-DDTHH:MM:SS, with a fraction or a zone if need be"),
    );
    case(
        "no seconds",
        at("2026-02-06T14:30"),
        Unparsed(
            "timestamp: 2026-02-06T14:30 is not written YYYY-MM-DDTHH:MM:SS, with a fraction or a zone if need be",
        ),
    );
    case(
        "zone of 24 hours",
        at("2026-02-06T14:30:00+24:00"),
        Unparsed("timestamp: 2026-02-06T14:30:00+24:00 has no zone like Z, +01:00 or +0100"),
    );
    case(
        "empty timestamp",
        at(""),
        Unparsed("timestamp: an empty string is not written YYYY-MM-DDTHH:MM:SS, with a fraction or a zone if need be"),
    );
    case(
        "text for timestamp",
        at("now \\u0007 or \u{202e}never"),
        Unparsed(
            "timestamp: now \\u{7} or \\u{202e}never is not written YYYY-MM-DDTHH:MM:SS, with a fraction or a zone if need be",
        ),
    );

    let tombstone = Unparsed("tombstone (null value)");
    all.push(Case { name: "tombstone", value: None, expected: tombstone, status: "unparsed" });

    // Well written, and late or ahead of their time.
    let mut timed = |name, time: &str, expected, status| {
        all.push(Case { name, value: Some(at(time)), expected, status });
    };
    timed("first second of 1970", "1970-01-01T00:00:00", Event, "late");
    timed("first second of 1970 by its zone", "1970-01-01T01:00:00+01:00", EventKept, "late");
    timed("the last that is too late", "2026-02-06T14:18:59", Event, "late");
    timed("the first that is not too late", "2026-02-06T14:19:00", Event, "ok");
    timed("last second of 2105", "2105-12-31T23:59:59", Event, "future");
    timed("last microsecond of 2105", "2105-12-31T23:59:59.999999", EventKept, "future");
    timed("last second of 2105 by its zone", "2106-01-01T00:59:59+0100", EventKept, "future");
    timed("a microsecond beyond the guard", "2026-02-06T14:35:05.000001", EventKept, "future");
    // It moves the watermark: the last.
    timed("at the guard", "2026-02-06T14:35:05", Event, "ok");
    all
}

/// The fields of [`EVENT`], as they are written there, with their types.
const FIELDS: &[(&str, &str, &str)] = &[
    ("event_id", "\"7c9e6679-7425-40de-944b-e07fc1f90ae7\"", "string"),
    ("user_id", "42", "int"),
    ("event_type", "\"click\"", "string"),
    ("page", "\"/home\"", "string"),
    ("timestamp", "\"2026-02-06T14:30:00\"", "timestamp"),
    ("source", "\"web\"", "string"),
];

/// Expectations are made once per run.
fn leak(text: String) -> &'static str {
    text.leak()
}

const FORM_5: &str =
    "timestamp: 12026-02-06T14:30:00 is not written YYYY-MM-DDTHH:MM:SS, with a fraction or a zone if need be";
