//! Bytes to columns, held against a plain reference over generated and mutated records.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use boathouse::config::{FieldType, Pipeline};
use boathouse::event::{Codes, Columns, Decoder, RawBatch, Schema, bronze_fields, coded_fields};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::corpus::{self, Expected};
use crate::reference::{self, Cell, Event};

/// A record's value; none for a tombstone.
type Value = Option<Vec<u8>>;

fn seed() -> Pipeline {
    pipeline(include_str!("../../config/pipelines/user_events/pipeline.toml"))
}

/// A pipeline with every type, required and not, and a key that is not ASCII.
fn wide() -> Pipeline {
    let mut toml = String::from("topic = \"t\"\n");
    for (name, kind, required, role) in [
        ("at", "timestamp", true, "role = \"event_time\""),
        ("id", "string", true, "role = \"event_id\""),
        ("n", "int", true, ""),
        ("größe", "float", true, ""),
        ("paid", "bool", true, ""),
        ("note", "string", false, ""),
        ("seen", "timestamp", false, ""),
        ("count", "int", false, ""),
        ("rate", "float", false, ""),
        ("flag", "bool", false, ""),
    ] {
        toml += &format!("[[field]]\nname = \"{name}\"\ntype = \"{kind}\"\nrequired = {required}\n{role}\n");
    }
    toml += "[[aggregate]]\nname = \"a\"\nmeasure = \"c\"\ndimensions = [\"note\"]\n";
    pipeline(&toml)
}

fn pipeline(toml: &str) -> Pipeline {
    toml_edit::de::from_str(toml).expect("a pipeline")
}

fn decoder(pipeline: &Pipeline) -> Decoder {
    Decoder::new(Schema::new(pipeline), &coded_fields(pipeline))
}

fn decode(decoder: &mut Decoder, records: &[Value]) -> Columns {
    let mut raw = RawBatch::default();
    for (i, value) in records.iter().enumerate() {
        raw.push(i as i64, 0, None, value.as_deref());
    }
    raw.seal();
    decoder.decode(raw)
}

/// What the columns hold of a row: the event, or the error; and the codes of coded fields.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    outcome: Result<Event, String>,
    coded: Vec<Option<String>>,
}

fn rows(pipeline: &Pipeline, columns: &Columns) -> Vec<Row> {
    let len = columns.raw.len();
    assert_eq!(columns.fields.len(), pipeline.fields.len());
    assert_eq!((columns.event_time.len(), columns.keep_payload.len()), (len, len));
    for (field, array) in bronze_fields(pipeline).iter().zip(&columns.fields) {
        assert_eq!((field.data_type(), array.len()), (array.data_type(), len));
    }
    let row = |i: usize| {
        let cell = |f: usize| -> Cell {
            let array = &columns.fields[f];
            if array.is_null(i) {
                return Cell::Null;
            }
            match pipeline.fields[f].kind {
                FieldType::String => Cell::Text(array.as_string::<i32>().value(i).to_string()),
                FieldType::Int => Cell::Int(array.as_primitive::<Int64Type>().value(i)),
                FieldType::Float => Cell::Float(array.as_primitive::<Float64Type>().value(i).to_bits()),
                FieldType::Bool => Cell::Bool(array.as_boolean().value(i)),
                FieldType::Timestamp => Cell::Time(array.as_primitive::<TimestampMicrosecondType>().value(i)),
            }
        };
        let cells: Vec<Cell> = (0..pipeline.fields.len()).map(cell).collect();
        let coded = |codes: &Codes| match codes.codes[i] {
            Codes::NONE => None,
            code => Some(codes.values[code as usize].clone()),
        };
        let coded: Vec<Option<String>> = columns.codes.iter().map(|c| c.as_ref().and_then(coded)).collect();
        for (f, cell) in cells.iter().enumerate().filter(|(f, _)| columns.codes[*f].is_some()) {
            let text = match cell {
                Cell::Text(text) => Some(text.clone()),
                _ => None,
            };
            assert_eq!(coded[f], text, "codes of field {f}, row {i}");
        }
        let outcome = match columns.errors.iter().find(|(row, _)| *row == i as u32) {
            Some((_, error)) => {
                assert!(cells.iter().all(|c| *c == Cell::Null), "row {i} is no event and has values");
                assert!(columns.keep_payload[i], "row {i} is no event and its bytes are not kept");
                Err(error.clone())
            }
            None => Ok(Event { cells, event_time: columns.event_time[i], keep_payload: columns.keep_payload[i] }),
        };
        Row { outcome, coded }
    };
    let rows: Vec<Row> = (0..len).map(row).collect();
    assert!(columns.errors.is_sorted_by(|a, b| a.0 < b.0), "errors are by row");
    rows
}

/// Decodes the records in one batch and in several, and compares everything with the reference.
fn check(pipeline: &Pipeline, records: &[Value], cuts: &[usize]) -> Result<(), TestCaseError> {
    let whole = rows(pipeline, &decode(&mut decoder(pipeline), records));
    for (value, row) in records.iter().zip(&whole) {
        let expected = value.as_deref().and_then(|v| reference::event(pipeline, v));
        let text = || String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
        match &row.outcome {
            Ok(event) => prop_assert_eq!(Some(event), expected.as_ref(), "{}", text()),
            Err(error) => {
                prop_assert_eq!(None, expected, "{} for {}", error, text());
                prop_assert!(error.chars().count() < 250 && !error.contains('\n'), "{}", error);
            }
        }
    }
    // A decoder that has seen nothing has no short cut to take.
    for (value, row) in records.iter().zip(&whole) {
        let alone = rows(pipeline, &decode(&mut decoder(pipeline), std::slice::from_ref(value)));
        prop_assert_eq!(&alone[0], row);
    }
    let mut one = decoder(pipeline);
    let mut cut = Vec::new();
    let mut rest = records;
    for len in cuts {
        let (part, tail) = rest.split_at((*len).min(rest.len()));
        rest = tail;
        cut.extend(rows(pipeline, &decode(&mut one, part)));
    }
    cut.extend(rows(pipeline, &decode(&mut one, rest)));
    prop_assert_eq!(cut, whole);
    Ok(())
}

/// How the values of a type are written: mostly well, sometimes oddly, seldom wrongly.
fn value_of(kind: FieldType) -> BoxedStrategy<String> {
    let odd = select(vec![
        "null",
        "\"\"",
        "\"a\"",
        "0",
        "-0",
        "-1",
        "1.0",
        "1e2",
        "1E-400",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "123456789012345678",
        "1234567890123456789",
        "00",
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e999",
        "NaN",
        "0.30000000000000004",
        "9007199254740993",
        "true",
        "false",
        "True",
        "[]",
        "{}",
        "[1,{\"a\":null}]",
        "{\"at\":1}",
        "\"2026-02-06T14:30:00\"",
        "\"\\u0041\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "\"\\\"\"",
        "\"\\\\\"",
        "\"\u{7f}\u{80}é😀\"",
        "\"\u{1}\"",
        "\"",
        "",
    ])
    .prop_map(str::to_string);
    let good = match kind {
        FieldType::String => prop_oneof![
            6 => select(vec!["login", "click", "purchase", "logout", "web", "mobile", "/home", "/p/1"]).prop_map(quoted),
            2 => "[ !#-\\[\\]-~]{0,40}".prop_map(|s| quoted(&s)),
            1 => "[a-zé€😀\u{7f}-\u{a0}]{0,20}".prop_map(|s| quoted(&s)),
            1 => "([a-z]{0,9}(\\\\n|\\\\\"|\\\\\\\\|\\\\u00e9|\\\\u0000|\\\\/)){1,3}".prop_map(|s| quoted(&s)),
        ]
        .boxed(),
        FieldType::Int => prop_oneof![
            4 => (0i64..1000).prop_map(|n| n.to_string()),
            2 => any::<i64>().prop_map(|n| n.to_string()),
            1 => "-?[0-9]{1,21}",
        ]
        .boxed(),
        FieldType::Float => prop_oneof![
            3 => (-100_000i64..100_000, 0u32..4).prop_map(|(n, d)| format!("{}", n as f64 / 10f64.powi(d as i32))),
            1 => any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| format!("{f:e}")),
            2 => "-?[0-9]{1,18}(\\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?",
        ]
        .boxed(),
        FieldType::Bool => select(vec!["true", "false"]).prop_map(str::to_string).boxed(),
        FieldType::Timestamp => timestamp().prop_map(|s| quoted(&s)).boxed(),
    };
    prop_oneof![12 => good, 1 => odd].boxed()
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn timestamp() -> impl Strategy<Value = String> {
    let near =
        (6u32..8, 0u32..24, 0u32..60, 0u32..60).prop_map(|(d, h, m, s)| format!("2026-02-{d:02}T{h:02}:{m:02}:{s:02}"));
    let far = (1968u32..2108, 0u32..14, 0u32..33, 0u32..26, 0u32..62, 0u32..62)
        .prop_map(|(y, mo, d, h, m, s)| format!("{y:04}-{mo:02}-{d:02}T{h:02}:{m:02}:{s:02}"));
    let edge = select(vec![
        "1970-01-01T00:00:00",
        "1969-12-31T23:59:59",
        "2105-12-31T23:59:59",
        "2106-01-01T00:00:00",
        "0000-01-01T00:00:00",
        "9999-12-31T23:59:59",
        "2000-02-29T12:00:00",
        "2100-02-29T12:00:00",
        "2026-02-06 14:30:00",
        "2026-02-06t14:30:00",
        "2026-02-06T14:30",
        "2026-02-06",
    ])
    .prop_map(str::to_string);
    let tail = prop_oneof![
        Just(String::new()),
        Just("Z".to_string()),
        "(\\.[0-9]{1,9})?(Z|[-+][0-2][0-9]:?[0-6][0-9])?",
        select(vec![".", "z", " ", "+01", ",5", ".Z", "+1:00", "+010", "-24:00"]).prop_map(str::to_string),
    ];
    let tail = prop_oneof![5 => Just(String::new()), 2 => tail];
    (prop_oneof![6 => near, 2 => far, 1 => edge], tail).prop_map(|(time, tail)| time + &tail)
}

/// One choice of words for every field of a record.
fn values(pipeline: &Pipeline) -> BoxedStrategy<Vec<String>> {
    pipeline.fields.iter().map(|f| value_of(f.kind)).collect::<Vec<_>>().boxed()
}

/// How a record is put together.
#[derive(Debug, Clone)]
struct Form {
    /// Sort keys of the fields.
    order: Vec<u8>,
    /// Fields left out.
    left_out: Vec<bool>,
    /// White space: around the record, before a colon, behind it, behind a comma.
    space: [&'static str; 4],
    /// A member of its own: where, and its text.
    extra: Option<(Index, String)>,
}

fn form(fields: usize) -> impl Strategy<Value = Form> {
    let space = prop_oneof![
        2 => Just([""; 4]),
        1 => Just(["", "", " ", " "]),
        1 => [select(vec!["", " ", "\n"]), select(vec!["", "\t"]), select(vec!["", "  "]), select(vec!["", "\r\n"])],
    ];
    let extra = select(vec![
        r#""x":1"#,
        r#""x":null"#,
        r#""x":"é\n""#,
        r#""user_id":7"#,
        r#""user_id":"x""#,
        r#""\u0069d":"other""#,
        r#""n":1"#,
        r#""note":null"#,
        r#""page":"again""#,
        r#""x":[1e999,{"y":"\ud800"}]"#,
        r#""x":{"a":[[],{}]}"#,
        r#""x""#,
        r#":1"#,
        r#"x:1"#,
        r#""x":"#,
        "",
    ]);
    let order = prop_oneof![2 => Just(vec![0; fields]), 1 => vec(any::<u8>(), fields)];
    let left_out = prop_oneof![3 => Just(vec![false; fields]), 1 => vec(prop::bool::weighted(0.3), fields)];
    let extra = prop_oneof![4 => Just(None), 1 => (any::<Index>(), extra.prop_map(str::to_string)).prop_map(Some)];
    (order, left_out, space, extra).prop_map(|(order, left_out, space, extra)| Form { order, left_out, space, extra })
}

fn write(pipeline: &Pipeline, form: &Form, values: &[String]) -> String {
    let [around, colon, value, comma] = form.space;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|i| form.order[*i]);
    let member = |i: &usize| format!("\"{}\"{colon}:{value}{}", pipeline.fields[*i].name, values[*i]);
    let mut members: Vec<String> = order.iter().filter(|i| !form.left_out[**i]).map(member).collect();
    if let Some((at, extra)) = &form.extra {
        members.insert(at.index(members.len() + 1), extra.clone());
    }
    format!("{around}{{{}}}{around}", members.join(&format!(",{comma}")))
}

/// Damage to a record's bytes.
#[derive(Debug, Clone)]
enum Damage {
    None,
    Tombstone,
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Double(Index, usize),
    Swap(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let near_miss = select(b"\"\\{}[]:,0123456789-+.eETZ \n\0\x1f\x7f\x80\xc3\xff".to_vec());
    let harm = prop_oneof![
        1 => Just(Damage::Tombstone),
        8 => (any::<Index>(), near_miss).prop_map(|(i, b)| Damage::Set(i, b)),
        6 => (any::<Index>(), 0u8..8).prop_map(|(i, b)| Damage::Flip(i, b)),
        3 => any::<Index>().prop_map(Damage::Cut),
        3 => (any::<Index>(), 1usize..12).prop_map(|(i, n)| Damage::Remove(i, n)),
        3 => (any::<Index>(), 1usize..12).prop_map(|(i, n)| Damage::Double(i, n)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(i, j)| Damage::Swap(i, j)),
    ];
    prop_oneof![3 => Just(Damage::None), 1 => harm]
}

fn hurt(damage: &Damage, text: String) -> Value {
    let mut bytes = text.into_bytes();
    let len = bytes.len();
    match damage {
        Damage::None => {}
        Damage::Tombstone => return None,
        Damage::Set(i, byte) => bytes[i.index(len)] = *byte,
        Damage::Flip(i, bit) => bytes[i.index(len)] ^= 1 << bit,
        Damage::Cut(i) => bytes.truncate(i.index(len)),
        Damage::Remove(i, n) => drop(bytes.drain(i.index(len)..(i.index(len) + n).min(len))),
        Damage::Double(i, n) => {
            let range = i.index(len)..(i.index(len) + n).min(len);
            let copy = bytes[range.clone()].to_vec();
            bytes.splice(range.start..range.start, copy);
        }
        Damage::Swap(i, j) => bytes.swap(i.index(len), j.index(len)),
    }
    Some(bytes)
}

/// A batch: a few forms, and records that mostly keep to them, as a topic with a few producers would.
fn batch(pipeline: &Pipeline) -> BoxedStrategy<Vec<Value>> {
    let fields = pipeline.fields.len();
    let forms = vec(form(fields), 1..4);
    let record = (any::<Index>(), values(pipeline), damage());
    let pipeline_of_long = pipeline.clone();
    // Long ones are made of few different records, with some harm here and there.
    let pick = (any::<Index>(), any::<Index>(), prop_oneof![60 => Just(Damage::None), 1 => damage()]);
    let long = (vec(form(fields), 1..3), vec(values(pipeline), 1..6), vec(pick, 100..400));
    let long = long.prop_map(move |(forms, values, picks)| {
        let one = |(form, value, damage): &(Index, Index, Damage)| {
            hurt(damage, write(&pipeline_of_long, form.get(&forms), value.get::<Vec<String>>(&values)))
        };
        picks.iter().map(one).collect()
    });
    let pipeline = pipeline.clone();
    let short = (forms, vec(record, 1..40)).prop_map(move |(forms, records)| {
        let one = |(form, values, damage): &(Index, Vec<String>, Damage)| {
            hurt(damage, write(&pipeline, form.get(&forms), values))
        };
        records.iter().map(one).collect()
    });
    prop_oneof![9 => short, 1 => long].boxed()
}

// 256 cases each, some 10,000 records; PROPTEST_CASES=20000 for a long run.
proptest! {
    #[test]
    fn decoder_and_reference_agree_on_user_events(records in batch(&seed()), cuts in vec(0usize..12, 0..6)) {
        check(&seed(), &records, &cuts)?;
    }

    #[test]
    fn decoder_and_reference_agree_on_every_type(records in batch(&wide()), cuts in vec(0usize..12, 0..6)) {
        check(&wide(), &records, &cuts)?;
    }

    #[test]
    fn reference_and_serde_json_agree_on_what_json_is(
        record in (form(10), values(&wide()), damage()).prop_map(|(f, v, d)| hurt(&d, write(&wide(), &f, &v)))
    ) {
        let value = record.unwrap_or_default();
        match serde_json::from_slice::<serde_json::Value>(&value) {
            // serde_json checks the range of every number.
            Err(e) if e.to_string().starts_with("number out of range") => {}
            theirs => prop_assert_eq!(theirs.is_ok(), reference::parse(&value).is_some()),
        }
    }
}

#[test]
fn every_case_of_the_corpus_meets_its_lot() {
    let pipeline = seed();
    let cases = corpus::cases();
    let values: Vec<Value> = cases.iter().map(|c| c.value.clone()).collect();
    let whole = rows(&pipeline, &decode(&mut decoder(&pipeline), &values));
    for (case, row) in cases.iter().zip(&whole) {
        let lot = match &row.outcome {
            Ok(event) if event.keep_payload => Expected::EventKept,
            Ok(_) => Expected::Event,
            Err(error) => Expected::Unparsed(error.clone().leak()),
        };
        assert_eq!(lot, case.expected, "{}", case.name);
        let expected = case.value.as_deref().and_then(|v| reference::event(&pipeline, v));
        assert_eq!(row.outcome.clone().ok(), expected, "{}", case.name);
    }
    // Between good records, each of which the decoder takes on its short way.
    let good = Some(corpus::EVENT.as_bytes().to_vec());
    let between: Vec<Value> = values.iter().flat_map(|v| [good.clone(), v.clone()]).collect();
    let between = rows(&pipeline, &decode(&mut decoder(&pipeline), &between));
    for (pair, alone) in between.chunks(2).zip(&whole) {
        assert!(pair[0].outcome.is_ok());
        assert_eq!(&pair[1], alone);
    }
}

#[test]
fn an_empty_batch_has_empty_columns() {
    let pipeline = wide();
    assert_eq!(rows(&pipeline, &decode(&mut decoder(&pipeline), &[])), []);
}

#[test]
fn payloads_are_always_kept_where_the_pipeline_says_so() {
    let mut pipeline = seed();
    pipeline.bronze.keep_payload = boathouse::config::KeepPayload::Always;
    let records = vec![Some(corpus::EVENT.as_bytes().to_vec()); 3];
    assert_eq!(decode(&mut decoder(&pipeline), &records).keep_payload, [true; 3]);
}

#[test]
fn the_event_time_has_the_name_of_its_column() {
    let names: Vec<String> = bronze_fields(&seed()).iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["event_id", "user_id", "event_type", "page", "event_time", "source"]);
    assert_eq!(coded_fields(&seed()), [2, 5]);
}
